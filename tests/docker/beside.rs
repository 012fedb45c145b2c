//! husk's command line beside Docker's: each line is run with both, and what they print and how they end is compared.

use std::{fmt::Write, process::Command};

use husk_tests::{
    containerd::assert_nothing_left,
    docker::{HOME, dockerd},
    process::{Output, Running},
};

/// The two programs, as `$C` in the lines.
const PROGRAMS: [&str; 2] = ["docker", "husk"];
/// A container in the background whose program ends of SIGTERM, with an exit code of its own.
const SERVER: &str = "$C run -d --network none --name one -l tier=front -e A=b busybox \
                      sh -c 'trap \"echo bye; exit 3\" TERM; echo out; echo err >&2; while :; do sleep 1000 & wait; done'";

/// What a line printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: i32,
    out: String,
}

fn ask(program: &str, line: &str) -> (Answer, Output) {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("C", program).env("HUSK_ROOT", HOME);
    let output = Running::start(&mut shell).finish();
    (Answer { code: output.code, out: without_ids(&output.out()) }, output)
}

/// Both, and a line of the transcript for whoever wants to look.
fn both(line: &str) -> [Answer; 2] {
    PROGRAMS.map(|program| {
        let (answer, output) = ask(program, line);
        eprintln!("[{program}] {line}\n{}{}-> {}", output.out(), output.err(), answer.code);
        answer
    })
}

/// The same with both, line by line.
#[track_caller]
fn same(lines: &[&str]) {
    let answers = lines.iter().map(|line| (line, both(line)));
    let different: Vec<_> = answers.filter(|(_, [docker, husk])| docker != husk).collect();
    assert!(different.is_empty(), "{} lines with different answers: {different:#?}", different.len());
}

/// With ids, which are never the same, by their lengths alone.
fn without_ids(text: &str) -> String {
    let mut made = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let id = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id =
            [12, 64].contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let _ =
            if is_id { write!(made, "<{}>{}", id.len(), &word[id.len()..]) } else { made.write_str(word) };
    }
    made
}

#[test]
fn a_containers_life_is_told_as_docker_tells_it() {
    dockerd();
    same(&[
        SERVER,
        "timeout 60 sh -c 'until $C logs one 2>&1 | grep -q err; do :; done'",
        "$C ps --format '{{.ID}} {{.Image}} {{.Command}} {{.Names}} {{.State}} {{.Labels}} {{.Ports}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}}'",
        "$C ps -q; $C ps -q --no-trunc; $C ps -aq -f status=exited; $C ps -q -f name=on -f label=tier",
        "$C ps | sed 's/  *[A-Z0-9].*//'",
        "$C ps -n 1 --format '{{.Names}}'; $C ps -l --format 'table {{.Names}}\\t{{.Image}}'",
        "$C ps --filter bogus=1",
        "$C ps --format '{{.Bogus}}'",
        "$C logs one 2>/dev/null; $C logs one 2>&1 >/dev/null; $C logs --tail 1 one 2>&1; $C logs -n 0 one",
        "$C logs -t one 2>/dev/null | sed 's/^[-0-9]*T[0-9:.]*Z/TIME/'",
        "$C logs --since 1h --until 1s nobody",
        "$C exec one sh -c 'echo $A; exit 7'",
        "$C exec -e B=c -w /tmp -u 1:2 one sh -c 'echo $B; pwd; id -u; id -g'",
        "echo fed | $C exec -i one cat",
        "$C exec -d one true",
        "$C exec nobody true",
        "$C top one | head -n 1 | tr -s ' '",
        "$C top one -o pid,comm | wc -l",
        "$C top nobody",
        "$C port one; $C port one 80; $C port nobody",
        "$C rename one two; $C inspect -f '{{.Name}}' two; $C rename two one; $C rename nobody some",
        "$C create --network none --name one busybox",
        "$C pause one; $C ps --format '{{.State}}'; $C exec one true",
        "$C pause one",
        "$C unpause one; $C unpause one",
        "$C update --restart on-failure:2 one; $C inspect -f '{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}' one",
        "$C update --restart no one",
        "$C rm one",
        "$C stop one; $C stop one",
        "$C ps -a --format '{{.Names}} {{.State}}'; $C ps -q",
        "$C inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.Paused}} {{.State.OOMKilled}} {{.State.Pid}} {{.RestartCount}} {{json .State.Error}}' one",
        "$C wait one; $C wait nobody",
        "$C logs one 2>/dev/null",
        "$C exec one true; $C pause one; $C kill one; $C top one; $C port one",
        "$C start one; $C restart -t 5 one; $C kill one; $C wait one",
        "$C start nobody; $C stop nobody; $C restart nobody; $C kill nobody; $C rm nobody",
        "$C start one one; $C kill -s KILL one; $C inspect -f '{{.State.ExitCode}}' one",
        "$C kill -s BOGUS one",
        "$C rm one; $C rm -f nobody; $C ps -aq",
    ]);
    assert_nothing_left();
}

#[test]
fn runs_end_as_dockers_do() {
    dockerd();
    same(&[
        "$C run --rm --network none busybox sh -c 'echo out; echo err >&2; exit 5'",
        "$C run --rm --network none busybox sh -c 'kill -9 $$'",
        "$C run --rm --network none busybox no-such-program",
        "$C run --rm --network none busybox /etc",
        "$C run --rm --network none -w relative busybox true",
        "$C run --rm --network none -u nobody-there busybox true",
        "$C run --rm --network bogus busybox true",
        "$C run --bogus busybox",
        "$C run --rm --network none --restart always busybox true",
        "$C run --rm --network none --restart sometimes busybox true",
        "$C run --rm --network none --memory 1k busybox true",
        "$C run --rm --network none --init busybox sh -c 'tr \"\\0\" \" \" </proc/1/cmdline'",
        "$C run --rm --network none -h box busybox hostname",
        "$C run --rm --network none --entrypoint echo busybox a b",
        "$C run --rm --network none --read-only busybox touch /x",
        "$C run --rm --network none --tmpfs /t:size=1m busybox sh -c 'grep -c \" /t tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k\" /proc/mounts'",
        "echo fed | $C run --rm -i --network none busybox cat",
        "rm -f id; $C run -d --cidfile id --network none --name cid busybox true; cat id; echo; $C run --cidfile id busybox true; $C wait cid; $C rm cid; rm id",
        "$C create --network none --name made busybox sh -c 'echo made; exit 4'; $C ps -a --format '{{.Names}} {{.Status}}'; $C start -a made; $C rm -v made",
        "$C run --network none --name fails --restart on-failure:1 busybox sh -c 'echo again; exit 6'; $C wait fails; $C inspect -f '{{.RestartCount}} {{.State.ExitCode}}' fails; $C logs fails; $C rm fails",
        "printf 'a=b\\nc\\n' >labels; $C create --label-file labels -l d=e --network none --name labelled busybox; $C inspect -f '{{json .Config.Labels}}' labelled; $C rm labelled; rm labels",
        "$C create --network none --name a busybox; $C create --network none --name b busybox; $C container prune -f | grep -v reclaimed; $C container prune -f --filter bogus=1",
        "$C container ls --format '{{.ID}}'",
        "$C bogus",
    ]);
    assert_nothing_left();
}

#[test]
fn descriptions_have_dockers_fields() {
    dockerd();
    same(&[SERVER]);
    same(&[
        "$C inspect one --format '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Labels}} {{.Config.Image}} {{.Config.Tty}} {{.Config.OpenStdin}} {{.Path}} {{json .Args}} {{.Name}} {{.Driver}}' | sed 's/ [a-z0-9]*$//'",
        "$C inspect one --format '{{.HostConfig.NetworkMode}} {{.HostConfig.LogConfig.Type}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.ShmSize}} {{.HostConfig.AutoRemove}}'",
        "$C inspect one --format '{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{len $v.IPAddress}}{{end}} {{len .Mounts}}'",
        "$C inspect nobody",
        "$C inspect --format '{{.Bogus}}' one | grep .",
        "$C inspect --format '{{' one",
        "$C inspect one nobody | head -n 2",
        "$C stats --no-stream --format '{{.Name}} {{.ID}} {{.PIDs}}' one | sed 's/[0-9]*$//'",
        "$C stats --no-stream one | head -n 1 | tr -s ' '",
        "$C events --since 1h --until 0s --filter container=one --filter type=container --filter event=start --format '{{.Action}} {{.Actor.Attributes.name}} {{.Type}}'",
        "$C stop one",
        "$C events --since 1h --until 0s --filter container=one --filter type=container --format '{{.Action}}' | grep -v '^exec\\|^attach' | sort -u",
    ]);
    let [docker, husk] = PROGRAMS.map(fields);
    // What a storage driver says of itself is its own.
    let of_driver = |field: &str| field.starts_with(".GraphDriver.Data.");
    let missing: Vec<_> = docker.iter().filter(|field| !husk.contains(*field) && !of_driver(field)).collect();
    assert!(missing.is_empty(), "fields of Docker's description that husk's lacks: {missing:?}");
    same(&["$C rm -f one"]);
    assert_nothing_left();
}

/// The paths of all fields of a container's description.
fn fields(program: &str) -> Vec<String> {
    let (_, output) = ask(program, "$C inspect one");
    let value: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
    let mut all = Vec::new();
    collect(&value[0], "", &mut all);
    all
}

fn collect(value: &serde_json::Value, path: &str, all: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        collect(value, &path, all);
        all.push(path);
    }
}
