//! The task API itself, without containerd between: whatever a client asks of a task, in whatever state that is, husk's shim answers with
//! runc's code.

use std::fs;

use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, CreateTaskRequest, DeleteRequest,
        ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, ResizePtyRequest, ResumeRequest,
        StartRequest, StateRequest, StatsRequest, UpdateTaskRequest, WaitRequest,
    },
    protobuf::{Message, well_known_types::any::Any},
    shim_sync::Client,
    ttrpc::{Error, Request},
};
use husk_tests::{
    containerd::{HUSK, RUNC, assert_nothing_left, containerd, ctr, status},
    wait::{PATIENCE, wait_until},
};
use serde_json::json;

use super::{detached, name_of, remove};

/// Both versions have the same messages; runc's shim serves that of its containerd.
const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// A shim's task API.
struct Shim {
    client: Client,
    service: &'static str,
    id: String,
}

impl Shim {
    /// That of a running container.
    fn of(id: &str) -> Self {
        let dir = format!("/run/containerd/io.containerd.runtime.v2.task/default/{id}");
        let address = fs::read_to_string(format!("{dir}/address")).unwrap_or_else(|_| {
            let text = fs::read_to_string(format!("{dir}/bootstrap.json")).unwrap();
            let bootstrap: serde_json::Value = serde_json::from_str(&text).unwrap();
            bootstrap["address"].as_str().unwrap().to_owned()
        });
        let client = Client::connect(&address).unwrap();
        let mut shim = Self { client, service: SERVICES[0], id: id.to_owned() };
        if shim.ask("State", &StateRequest { id: id.to_owned(), ..Default::default() }) == "UNIMPLEMENTED" {
            shim.service = SERVICES[1];
        }
        shim
    }

    /// The code of the answer to a request.
    fn ask(&self, method: &str, message: &impl Message) -> String {
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            payload: message.write_to_bytes().unwrap(),
            timeout_nano: i64::try_from(PATIENCE.as_nanos()).unwrap(),
            ..Default::default()
        };
        match self.client.request(request) {
            Ok(_) => "OK".to_owned(),
            Err(Error::RpcStatus(status)) => format!("{:?}", status.code()),
            Err(error) => format!("{error}"),
        }
    }
}

/// The answers to everything that may be asked of a task (of another's exec, if one is named), in the order of asking.
fn everything(shim: &Shim, id: &str, exec_id: &str) -> Vec<String> {
    let mut answers = Vec::new();
    let mut ask = |method: &str, answer: String| answers.push(format!("{method} {answer}"));
    macro_rules! ask {
        ($method:literal, $message:ident { $($field:ident: $value:expr),* }) => {{
            let message = $message { id: id.to_owned(), $($field: $value,)* ..Default::default() };
            ask($method, shim.ask($method, &message));
        }};
    }
    ask!("State", StateRequest { exec_id: exec_id.to_owned() });
    ask!("ResizePty", ResizePtyRequest { exec_id: exec_id.to_owned(), width: 80, height: 25 });
    ask!("CloseIO", CloseIORequest { exec_id: exec_id.to_owned(), stdin: true });
    if exec_id.is_empty() {
        ask!("Pids", PidsRequest {});
        ask!("Stats", StatsRequest {});
        ask!("Connect", ConnectRequest {});
        ask!("Update", UpdateTaskRequest { resources: any(&json!({"pids": {"limit": 100}})) });
        ask!("Resume", ResumeRequest {});
    }
    ask!("Start", StartRequest { exec_id: exec_id.to_owned() });
    ask!("Kill", KillRequest { exec_id: exec_id.to_owned(), signal: 0 });
    ask!("Kill", KillRequest { exec_id: exec_id.to_owned(), signal: 1000 });
    answers
}

fn any(value: &serde_json::Value) -> containerd_shim_protos::protobuf::MessageField<Any> {
    Some(Any { type_url: "json".into(), value: value.to_string().into_bytes(), ..Default::default() }).into()
}

fn exec(id: &str, exec_id: &str, args: &[&str]) -> ExecProcessRequest {
    let process = json!({"args": args, "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    ExecProcessRequest {
        id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        spec: any(&process),
        ..Default::default()
    }
}

/// A task's life from its start to its end, with everything asked at every stage.
fn life(shim: &Shim) -> Vec<(&'static str, Vec<String>)> {
    let id = shim.id.as_str();
    let owned = || id.to_owned();
    let start =
        |exec_id: &str| StartRequest { id: owned(), exec_id: exec_id.to_owned(), ..Default::default() };
    let wait = |exec_id: &str| WaitRequest { id: owned(), exec_id: exec_id.to_owned(), ..Default::default() };
    let delete =
        |exec_id: &str| DeleteRequest { id: owned(), exec_id: exec_id.to_owned(), ..Default::default() };
    let kill = |exec_id: &str, signal, all| KillRequest {
        id: owned(),
        exec_id: exec_id.to_owned(),
        signal,
        all,
        ..Default::default()
    };
    let create = CreateTaskRequest { id: owned(), bundle: "/nonexistent".into(), ..Default::default() };
    let nobody = |of: &str| {
        vec![
            shim.ask("Wait", &WaitRequest { id: of.to_owned(), ..Default::default() }),
            shim.ask("Delete", &DeleteRequest { id: of.to_owned(), ..Default::default() }),
            shim.ask("Pause", &PauseRequest { id: of.to_owned(), ..Default::default() }),
        ]
    };
    let mut seen = vec![
        ("of nobody", [everything(shim, "nobody", ""), nobody("nobody")].concat()),
        ("of nobody's exec", everything(shim, "nobody", "e")),
        ("of no exec", everything(shim, id, "nothing")),
        ("running", everything(shim, id, "")),
        (
            "running, changed",
            vec![
                shim.ask("Create", &create),
                shim.ask("Delete", &delete("")),
                shim.ask("Delete", &delete("nothing")),
                shim.ask("Wait", &wait("nothing")),
                shim.ask("Exec", &exec(id, "e1", &["sleep", "100000"])),
                shim.ask("Exec", &exec(id, "e1", &["sleep", "100000"])),
            ],
        ),
        ("an exec that was added", everything(shim, id, "e1")),
    ];
    seen.push((
        "an exec from its addition to its end",
        vec![
            shim.ask("Exec", &exec(id, "e2", &["sleep", "100000"])),
            shim.ask("Start", &start("e2")),
            shim.ask("Start", &start("e2")),
            shim.ask("Delete", &delete("e2")),
            shim.ask("Kill", &kill("e2", 9, false)),
            shim.ask("Wait", &wait("e2")),
            shim.ask("Kill", &kill("e2", 9, false)),
            shim.ask("Exec", &exec(id, "e2", &["true"])),
        ],
    ));
    seen.push(("an exec that has ended", everything(shim, id, "e2")));
    seen.push((
        "execs that were deleted, or never started",
        vec![
            shim.ask("Delete", &delete("e2")),
            shim.ask("Delete", &delete("e2")),
            shim.ask("Exec", &exec(id, "e3", &["true"])),
            shim.ask("Delete", &delete("e3")),
        ],
    ));
    seen.push(("pausing", vec![shim.ask("Pause", &PauseRequest { id: owned(), ..Default::default() })]));
    seen.push((
        "paused",
        vec![
            shim.ask("State", &StateRequest { id: owned(), ..Default::default() }),
            shim.ask("Pause", &PauseRequest { id: owned(), ..Default::default() }),
            shim.ask("Start", &start("")),
            shim.ask("Delete", &delete("")),
            shim.ask("Exec", &exec(id, "e4", &["true"])),
            shim.ask("Checkpoint", &CheckpointTaskRequest { id: "nobody".into(), ..Default::default() }),
            shim.ask("Stats", &StatsRequest { id: owned(), ..Default::default() }),
            shim.ask("Pids", &PidsRequest { id: owned(), ..Default::default() }),
            shim.ask("Resume", &ResumeRequest { id: owned(), ..Default::default() }),
            shim.ask("Resume", &ResumeRequest { id: owned(), ..Default::default() }),
        ],
    ));
    seen
}

/// A task's end, with everything asked after it: of another task, since runc's shim of some versions does not survive the end of one that
/// was to be started twice.
fn end(shim: &Shim) -> Vec<(&'static str, Vec<String>)> {
    let id = shim.id.as_str();
    let owned = || id.to_owned();
    let wait = WaitRequest { id: owned(), ..Default::default() };
    let kill = |all| KillRequest { id: owned(), signal: 9, all, ..Default::default() };
    vec![
        ("ending", vec![shim.ask("Kill", &kill(true)), shim.ask("Wait", &wait), shim.ask("Wait", &wait)]),
        ("ended", everything(shim, id, "")),
        (
            "ended, changed",
            vec![
                shim.ask("Kill", &kill(false)),
                shim.ask("Kill", &kill(true)),
                shim.ask("Pause", &PauseRequest { id: owned(), ..Default::default() }),
                shim.ask("Exec", &exec(id, "e5", &["true"])),
            ],
        ),
    ]
}

#[test]
fn answers_have_runcs_codes() {
    containerd();
    let lives = [RUNC, HUSK].map(|runtime| {
        let parts = [life, end].into_iter().zip(["life", "end"]).map(|(part, name)| {
            let id = format!("api-{name}-{}", name_of(runtime));
            detached(runtime, &id, &[], &["sleep", "100000"]);
            let seen = part(&Shim::of(&id));
            if runtime == HUSK {
                remove(&id);
            } else {
                // The signal may be its shim's end, too: containerd cleans up then.
                ctr(&["task", "kill", "-s", "KILL", &id]);
                wait_until("the task to end", PATIENCE, || status(&id).as_deref() != Some("RUNNING"));
                ctr(&["task", "rm", &id]);
                wait_until("the container to be gone", PATIENCE, || ctr(&["container", "rm", &id]).code == 0);
                // What a shim that has crashed leaves; there is no other.
                for socket in fs::read_dir("/run/containerd/s").unwrap() {
                    // Or it is about to go by itself.
                    let _ = fs::remove_file(socket.unwrap().path());
                }
            }
            seen
        });
        parts.flatten().collect::<Vec<_>>()
    });
    for (runc, husk) in lives[0].iter().zip(&lives[1]) {
        assert_eq!(runc, husk);
    }
    assert_nothing_left();
}
