use proptest::prelude::*;
use serde_json::json;

use super::*;

fn document() -> Value {
    json!({
        "Id": "a5a665ff33ec",
        "Name": "/web",
        "Args": ["-g", "daemon off;"],
        "State": { "Status": "running", "Running": true, "Pid": 42 },
        "Config": {
            "Env": ["A=1", "B=x y"],
            "Labels": { "a": "1", "com.x": "<v>&" },
            "Cmd": ["sh", "-c", "true"],
            "None": {},
        },
        "HostConfig": { "NanoCpus": 1_500_000_000 },
        "NetworkSettings": {
            "Ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }], "90/tcp": null },
            "Networks": { "bridge": { "IPAddress": "172.17.0.2" }, "xnet": { "IPAddress": "172.18.0.2" } },
        },
        "Float": 1.5,
        "Null": null,
        "Mixed": [1, "two", null, true, { "b": 1, "a": [] }],
    })
}

fn render(template: &str) -> Result<String, Error> {
    Template::parse(template)?.render(Subject::Document(&document()))
}

fn check(cases: &[(&str, &str)]) {
    for (template, text) in cases {
        match render(template) {
            Ok(result) => assert_eq!(result, *text, "{template}"),
            Err(error) => panic!("{template}: {error}"),
        }
    }
}

fn check_errors(cases: &[(&str, &str)]) {
    for (template, text) in cases {
        match render(template) {
            Ok(result) => panic!("{template}: {result}"),
            Err(error) => assert_eq!(error.to_string(), format!("template parsing error: template: {text}")),
        }
    }
}

#[test]
fn fields_and_values() {
    check(&[
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("{{.Name}}\\t{{.Id}}", "/web\\ta5a665ff33ec"),
        ("{{.ID}} {{.HostConfig.NanoCPUs}}", "a5a665ff33ec 1500000000"),
        ("{{.State.Running}} {{.State.Pid}} {{.Float}}", "true 42 1.5"),
        ("{{.Config.Env}}", "[A=1 B=x y]"),
        ("{{.Config.Labels}}", "map[a:1 com.x:<v>&]"),
        ("{{.Mixed}} {{.Null}}", "[1 two <nil> true map[a:[] b:1]] <no value>"),
        ("{{.Config.Labels.foo}} {{.Config.None.Foo}}", "<no value> <no value>"),
        ("{{.NetworkSettings.Networks.foo.IPAddress}}", "<no value>"),
        ("{{.NetworkSettings.Networks.bridge.IPAddress}}", "172.17.0.2"),
        ("{{(.State).Pid}}{{($).Id}} {{$.Name}}", "42a5a665ff33ec /web"),
        ("{{json .Config.Labels}}", r#"{"a":"1","com.x":"<v>&"}"#),
        ("{{json .Mixed}} {{json .Null}}", r#"[1,"two",null,true,{"a":[],"b":1}] null"#),
        (r#"{{json "<\u2028>"}}"#, r#""<\u2028>""#),
    ]);
    check_errors(&[
        ("{{.Foo}}", r#":1:2: executing "" at <.Foo>: map has no entry for key "Foo""#),
        ("{{.State.Foo}}", r#":1:8: executing "" at <.State.Foo>: map has no entry for key "Foo""#),
        (
            "{{.State.Health.Status}}",
            r#":1:8: executing "" at <.State.Health.Status>: map has no entry for key "Health""#,
        ),
        ("a\n {{- \"b\" }}\n{{ .Foo }}", r#":3:3: executing "" at <.Foo>: map has no entry for key "Foo""#),
        ("{{.Null.foo}}", r#":1:7: executing "" at <.Null.foo>: nil pointer evaluating interface {}.foo"#),
        (
            "{{.Mixed.foo}}",
            r#":1:8: executing "" at <.Mixed.foo>: can't evaluate field foo in type []interface {}"#,
        ),
        (r#"{{.Name "x"}}"#, r#":1:2: executing "" at <.Name>: wrong number of args for Name: want 0 got 1"#),
        (
            "{{.NetworkSettings.Networks.bridge.Foo}}",
            r#":1:18: executing "" at <.NetworkSettings.Networks.bridge.Foo>: map has no entry for key "Foo""#,
        ),
    ]);
}

#[test]
fn literals() {
    check(&[
        (r#"{{"a\tb\x41\u00e9\101"}}{{`r\aw`}}"#, "a\tbAéAr\\aw"),
        ("{{'a'}} {{0x10}} {{017}} {{0b11}} {{0o17}} {{1_000}} {{-5}} {{+5}}", "97 16 15 3 15 1000 -5 5"),
        ("{{1e3}} {{1.50}} {{.5}} {{1.0}} {{1e6}} {{1e21}} {{0.00001}}", "1000 1.5 0.5 1 1e+06 1e+21 1e-05"),
        ("{{true}} {{false}}", "true false"),
        ("{{- /* a comment */ -}} x", "x"),
        ("a {{- \"b\" -}} c", "abc"),
        ("{{\"a\"}} {{- \"b\"}}", "ab"),
        ("{{\n.Name\n}}", "/web"),
    ]);
    check_errors(&[
        ("{{nil}}", r#":1:2: executing "" at <nil>: nil is not a command"#),
        ("{{1 2}}", r#":1:2: executing "" at <1>: can't give argument to non-function"#),
    ]);
}

#[test]
fn syntax_errors() {
    check_errors(&[
        ("{{.ID", ":1: unclosed action"),
        ("{{", ":1: unclosed action"),
        ("a\n{{foo}}", r#":2: function "foo" not defined"#),
        ("{{if}}", ":1: missing value for if"),
        ("{{range}}", ":1: missing value for range"),
        ("{{}}", ":1: missing value for command"),
        ("{{.A | }}", ":1: missing value for command"),
        ("{{end}}", ":1: unexpected {{end}}"),
        ("{{else}}", ":1: unexpected {{else}}"),
        ("{{else if true}}", ":1: unexpected {{else}}"),
        ("{{if .ID}}", ":1: unexpected EOF"),
        ("{{if .ID}}{{else}}{{else}}{{end}}", ":1: unexpected {{else}}"),
        ("{{range .ID}}{{else if .ID}}{{end}}", ":1: unexpected {{else}}"),
        ("{{\"a}}", ":1: unterminated quoted string"),
        ("{{\"a\n\"}}", ":1: unterminated quoted string"),
        ("{{`a}}", ":1: unterminated quoted string"),
        ("{{'a}}", ":1: unterminated character constant"),
        ("{{'ab'}}", ":1: invalid escape sequence in 'ab'"),
        (r#"{{"\'"}}"#, r#":1: invalid escape sequence in "\'""#),
        (r#"{{"\q"}}"#, r#":1: invalid escape sequence in "\q""#),
        ("{{08}}", r#":1: bad number syntax: "08""#),
        ("{{1x}}", r#":1: bad number syntax: "1x""#),
        ("{{0x}}", r#":1: bad number syntax: "0x""#),
        ("{{--5}}", r#":1: bad number syntax: "-""#),
        ("{{$x}}", r#":1: undefined variable "$x""#),
        ("{{$x = 1}}", r#":1: undefined variable "$x""#),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", r#":1: undefined variable "$x""#),
        ("{{$a, $b := 1}}", ":1: too many declarations in command"),
        ("{{$a : 1}}", ":1: expected :="),
        ("{{.A!}}", ":1: bad character '!'"),
        ("{{(.A}}", ":1: unclosed left paren"),
        ("{{.A)}}", ":1: unexpected right paren"),
        ("{{.A (.B}}", ":1: unclosed left paren"),
        ("{{/* a }}", ":1: unclosed comment"),
        ("{{/* a */ b}}", ":1: comment ends before closing delimiter"),
        ("{{ /* a */}}", r#":1: unexpected "/" in command"#),
        ("{{.A,}}", r#":1: unexpected "," in command"#),
        ("{{\"a\".B}}", r#":1: unexpected . after term "\"a\"""#),
        ("{{template \"x\"}}", ":1: {{template}} is not supported here"),
        ("{{break}}", ":1: {{break}} is not supported here"),
    ]);
    let deep = format!("{}1{}", "{{print ".to_owned() + &"(".repeat(101), ")".repeat(101) + "}}");
    assert!(matches!(Template::parse(&deep), Err(Error::Syntax { reason: error::Syntax::TooDeep(100), .. })));
    let deep = "{{if 1}}".repeat(5000);
    assert!(matches!(Template::parse(&deep), Err(Error::Syntax { reason: error::Syntax::TooDeep(100), .. })));
    let wide = "{{if 1}}a{{end}}".repeat(5000);
    assert_eq!(render(&wide).unwrap(), "a".repeat(5000));
}

#[test]
fn branches_and_variables() {
    check(&[
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if eq 1 2}}a{{else if eq 1 1}}b{{else}}c{{end}}", "b"),
        ("{{if eq 1 2}}a{{else if eq 1 3}}b{{else}}c{{end}}!", "c!"),
        ("{{if .Config.None}}a{{end}}{{if 0}}b{{end}}{{if \"\"}}c{{end}}{{if .Null}}d{{end}}", ""),
        ("{{with .State}}{{.Pid}}{{end}}{{with .Null}}a{{else}}b{{end}}", "42b"),
        ("{{with $x := .State}}{{$x.Pid}}{{end}}", "42"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=x y\n"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=1 com.x=<v>& "),
        ("{{range $m := .Mixed}}{{$m}},{{end}}", "1,two,<no value>,true,map[a:[] b:1],"),
        ("{{range $i, $m := .Args}}{{$i}}{{end}}", "01"),
        ("{{range .Null}}{{else}}none{{end}}", "none"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "172.17.0.2 172.18.0.2 "),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{if $c}}{{(index $c 0).HostPort}}{{else}}-{{end}} {{end}}",
            "80/tcp->8080 90/tcp->- ",
        ),
        ("{{$a := 1}}{{if true}}{{$a = 2}}{{$b := 3}}{{end}}{{$a}}", "2"),
        ("{{$a := 1}}{{range .Args}}{{$a := 5}}{{end}}{{$a}}", "1"),
        ("{{$n := 0}}{{range .Args}}{{$n = .}}{{end}}{{$n}}", "daemon off;"),
        ("{{$x := .State}}{{$x.Status}}", "running"),
        ("{{range split \"a,b\" \",\"}}{{.}}{{$.Name}}{{end}}", "a/webb/web"),
    ]);
    check_errors(&[(
        "{{range .State.Pid}}{{end}}",
        r#":1:14: executing "" at <.State.Pid>: range can't iterate over int"#,
    )]);
}

#[test]
fn texts() {
    check(&[
        (r#"{{join .Config.Env ","}}|{{join .Null ","}}"#, "A=1,B=x y|"),
        (r#"{{split "a,b" ","}} {{split "ab" ""}} {{len (split "" ",")}}"#, "[a b] [a b] 1"),
        (r#"{{join (split "a=1,b=2" ",") "|"}}"#, "a=1|b=2"),
        (
            r#"{{lower "ÀB"}} {{upper "àb"}} {{title "hello wORLD foo_bar a-b éa"}}"#,
            "àb ÀB Hello WORLD Foo_bar A-B Éa",
        ),
        (r#"{{pad "" 2 2}}|{{pad "x" 2 1}}|"#, "|  x |"),
        (r#"{{truncate "abcdef" 3}} {{truncate "ab" 9}} {{truncate "日本" 4}}"#, "abc ab 日"),
        (r#"{{print 1 2 "a" 3 4}} {{print "a" "b"}} {{print .Null}} {{print}}"#, "1 2a3 4 ab <nil> "),
        (r#"{{println "a" 1}}"#, "a 1\n"),
        (r#"{{.Name | upper | printf "%s-%s" "x"}}"#, "x-/WEB"),
        ("{{.Config.Labels | json | len}}", "24"),
    ]);
    check_errors(&[
        (
            "{{lower .State.Pid}}",
            r#":1:14: executing "" at <.State.Pid>: wrong type for value; expected string; got int"#,
        ),
        (
            r#"{{join .Mixed ","}}"#,
            r#":1:7: executing "" at <.Mixed>: wrong type for value; expected []string; got []interface {}"#,
        ),
        ("{{.Name|join}}", r#":1:8: executing "" at <join>: wrong number of args for join: want 2 got 1"#),
        (
            r#"{{pad "x" -1 1}}"#,
            r#":1:2: executing "" at <pad "x" -1 1>: error calling pad: a length of -1 is negative or larger than 1048576"#,
        ),
    ]);
}

#[test]
fn printf() {
    check(&[
        (
            r#"{{printf "%5s|%-5s|%d|%q|%t|%v|%x" "a" "b" 3 "q\"" true 1.5 255}}"#,
            r#"    a|b    |3|"q\""|true|1.5|ff"#,
        ),
        (r#"{{printf "%d %s %z" "x" 5 6}}"#, "%!d(string=x) %!s(int=5) %!z(int=6)"),
        (
            r#"{{printf "%s"}}|{{printf "a" 1 "b"}}|{{printf "%"}}|{{printf "%%"}}"#,
            "%!s(MISSING)|a%!(EXTRA int=1, string=b)|%!(NOVERB)|%",
        ),
        (
            r#"{{printf "%v %q %s" .Config.Env .Config.Env .Config.Env}}"#,
            r#"[A=1 B=x y] ["A=1" "B=x y"] [A=1 B=x y]"#,
        ),
        (
            r#"{{printf "%s %v" .Mixed .Mixed}}"#,
            "[%!s(int=1) two <nil> %!s(bool=true) map[a:[] b:%!s(int=1)]] [1 two <nil> true map[a:[] b:1]]",
        ),
        (r#"{{printf "%s|%v" nil nil}}"#, "%!s(<nil>)|<nil>"),
        (
            r#"{{printf "%t %d %5.1f|%05d|%+d|%x|%X|%c|%e" 1 true 1.25 42 5 "hi" 255 65 1.5}}"#,
            "%!t(int=1) %!d(bool=true)   1.2|00042|+5|6869|FF|A|1.500000e+00",
        ),
        (
            r#"{{printf "%-5d|%5t|%8.3s|%v|%05d|% d" 3 true "abcdef" 1e21 -7 5}}"#,
            "3    | true|     abc|1e+21|-0007| 5",
        ),
        (r#"{{printf "%6.2f|%x|%g|%f" 3.14159 "a b" 1e6 1.5}}"#, "  3.14|612062|1e+06|1.500000"),
    ]);
}

#[test]
fn comparisons() {
    check(&[
        (
            r#"{{eq .State.Status "running"}} {{gt .State.Pid 5}} {{eq 1 2 1}} {{eq .Null nil}} {{eq "a" nil}}"#,
            "true true true true false",
        ),
        (
            r#"{{lt 1.5 2.5}} {{le 2 2}} {{ne "a" "b"}} {{ge 2 3}} {{lt "a" "b"}} {{eq true true}}"#,
            "true true true false true true",
        ),
        (
            r#"{{not .Name}} {{not nil}} {{and .Name 0}} {{or 0 .Name}} {{or "" 0 "x"}}"#,
            "false true 0 /web x",
        ),
        ("{{or 1 (index .Mixed 99)}} {{and 0 (index .Mixed 99)}}", "1 0"),
        ("{{1 | and 2}} {{0 | or 0}}", "1 0"),
    ]);
    check_errors(&[
        (
            "{{eq .Name 5}}",
            r#":1:2: executing "" at <eq .Name 5>: error calling eq: incompatible types for comparison"#,
        ),
        (
            "{{le 1.5 2}}",
            r#":1:2: executing "" at <le 1.5 2>: error calling le: incompatible types for comparison"#,
        ),
        (
            "{{lt true false}}",
            r#":1:2: executing "" at <lt true false>: error calling lt: invalid type for comparison"#,
        ),
        (
            "{{eq .Mixed .Mixed}}",
            r#":1:2: executing "" at <eq .Mixed .Mixed>: error calling eq: non-comparable type []interface {}"#,
        ),
        ("{{lt 1 2 3}}", r#":1:2: executing "" at <lt>: wrong number of args for lt: want 2 got 3"#),
        ("{{eq 1}}", r#":1:2: executing "" at <eq>: wrong number of args for eq: want at least 2 got 1"#),
    ]);
}

#[test]
fn elements() {
    check(&[
        (r#"{{index .Config.Labels "com.x"}}|{{index .Config.Labels "foo"}}|"#, "<v>&||"),
        (r#"{{index .NetworkSettings.Networks "foo"}}"#, "<no value>"),
        (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8080"),
        (r#"{{(index .NetworkSettings.Ports "80/tcp" 0).HostPort}}"#, "8080"),
        (
            r#"{{index .Args 1}} {{index "abc" 0}} {{index .State "Pid"}} {{index (split "a,b" ",") 1}}"#,
            "daemon off; 97 42 b",
        ),
        (r#"{{slice "hello" 1 3}} {{slice .Args 1}} {{slice .Args}}"#, "el [daemon off;] [-g daemon off;]"),
        (r#"{{len .Config.Env}} {{len "日"}} {{len .Config.Labels}} {{index .Args 0 | len}}"#, "2 3 2 2"),
    ]);
    check_errors(&[
        (
            "{{index .Mixed 9}}",
            r#":1:2: executing "" at <index .Mixed 9>: error calling index: index out of range: 9"#,
        ),
        (
            "{{index .Args -1}}",
            r#":1:2: executing "" at <index .Args -1>: error calling index: index out of range: -1"#,
        ),
        (
            "{{index .Config.Labels 1}}",
            r#":1:2: executing "" at <index .Config.Labels 1>: error calling index: value has type int; should be string"#,
        ),
        (
            "{{index nil 1}}",
            r#":1:2: executing "" at <index nil 1>: error calling index: index of untyped nil"#,
        ),
        (
            "{{index 5 1}}",
            r#":1:2: executing "" at <index 5 1>: error calling index: can't index item of type int"#,
        ),
        (
            "{{slice .Id 1 2 3}}",
            r#":1:2: executing "" at <slice .Id 1 2 3>: error calling slice: cannot 3-index slice a string"#,
        ),
        ("{{len 3}}", r#":1:2: executing "" at <len 3>: error calling len: len of type int"#),
        (
            "{{slice .Id 3 1}}",
            r#":1:2: executing "" at <slice .Id 3 1>: error calling slice: invalid slice index: 3 > 1"#,
        ),
        (
            "{{slice .Id 99}}",
            r#":1:2: executing "" at <slice .Id 99>: error calling slice: index out of range: 99"#,
        ),
    ]);
}

#[test]
fn renderings_have_limits() {
    let items: Vec<u32> = (0..1000).collect();
    let value = json!(items);
    let render = |template: &str| Template::parse(template).unwrap().render(Subject::Document(&value));
    assert!(render("{{range $}}{{index $ .}}{{end}}").is_ok());
    let steps = render("{{range $}}{{range $}}{{end}}{{end}}");
    assert!(matches!(steps, Err(Error::Action { reason: error::Reason::TooManySteps(_), .. })));
    let output = render(r#"{{range $}}{{pad "x" 1000000 0}}{{end}}"#);
    assert!(matches!(output, Err(Error::Action { reason: error::Reason::TooLarge(64), .. })));
}

proptest! {
    /// Templates are the user's text: they are parsed and applied, or refused.
    #[test]
    fn any_text_is_a_template_or_an_error(
        parts in prop::collection::vec(
            prop_oneof![
                Just("{{".to_owned()), Just("}}".into()), Just("{{- ".into()), Just(" -}}".into()),
                Just("if ".into()), Just("range ".into()), Just("with ".into()), Just("else".into()),
                Just("end".into()), Just("$x".into()), Just(":=".into()), Just(".Args".into()),
                Just("(".into()), Just(")".into()), Just("|".into()), Just("printf ".into()),
                Just("slice ".into()), Just("index ".into()), Just("\"%5d".into()), Just("\"".into()),
                Just("-1".into()), Just(" ".into()), Just("é".into()), "[ -~]{0,4}", ".{0,3}",
            ],
            0..24,
        )
    ) {
        let source = parts.concat();
        match render(&source) {
            Ok(text) if !source.contains("{{") => prop_assert_eq!(text, source),
            _ => {}
        }
    }
}
