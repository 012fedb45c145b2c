use super::{
    rows::{ContainerRow, ImageRow, NetworkRow, StatsRow, VolumeRow},
    *,
};

fn row(id: &str, name: &str, image: &str, labels: &[(&str, &str)]) -> Row {
    let fields = ContainerRow {
        id: id.into(),
        names: name.into(),
        image: image.into(),
        command: "\"sh\"".into(),
        running_for: "24 hours ago".into(),
        state: "running".into(),
        size: "0B".into(),
        ports: "0.0.0.0:8080->80/tcp".into(),
        ..ContainerRow::default()
    };
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Row::new(&fields, labels).unwrap()
}

fn render(format: Option<&str>) -> Result<String, Error> {
    let rows = [
        row("containerID1", "foobar_baz", "ubuntu", &[("com.example.swarm-id", "33")]),
        row("containerID2", "日本", "busybox:1.36", &[]),
    ];
    Format::parse(format, ContainerRow::TABLE)?.render(ContainerRow::TITLES, &rows)
}

const TABLE: &str = "\
CONTAINER ID   IMAGE          COMMAND   CREATED        STATUS    PORTS                  NAMES
containerID1   ubuntu         \"sh\"      24 hours ago             0.0.0.0:8080->80/tcp   foobar_baz
containerID2   busybox:1.36   \"sh\"      24 hours ago             0.0.0.0:8080->80/tcp   日本
";

#[test]
fn forms() {
    for (format, text) in [
        (None, TABLE),
        (Some("table"), TABLE),
        (Some("table "), TABLE),
        (Some("table {{.Image}}"), "IMAGE\nubuntu\nbusybox:1.36\n"),
        (Some(r"table {{.Image}}\t{{.Size}}"), "IMAGE          SIZE\nubuntu         0B\nbusybox:1.36   0B\n"),
        (Some("tablex{{.Image}}"), "xIMAGE\nxubuntu\nxbusybox:1.36\n"),
        (Some(r"{{.ID}}\t{{.Names}}\n"), "containerID1\tfoobar_baz\n\ncontainerID2\t日本\n\n"),
        (
            Some(r#"table {{.ID}}\t{{.Label "com.example.swarm-id"}}"#),
            "CONTAINER ID   swarm id\ncontainerID1   33\ncontainerID2   \n",
        ),
        // Titles stay as they are, but for their padding.
        (
            Some(r#"table {{truncate .ID 5}}\t{{json .Image}} {{upper .Names}}|{{pad .State 1 2}}|"#),
            "CONTAINER ID   IMAGE NAMES| STATE  |\n\
             conta          \"ubuntu\" FOOBAR_BAZ| running  |\n\
             conta          \"busybox:1.36\" 日本| running  |\n",
        ),
        (Some(r#"table {{split .Image ":"}}"#), "IMAGE\n[ubuntu]\n[busybox 1.36]\n"),
    ] {
        assert_eq!(render(format).unwrap(), text, "{format:?}");
    }
}

#[test]
fn json_is_one_object_per_line() {
    let text = render(Some("json")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    // As Go writes what may stand in HTML.
    assert!(lines[0].contains(r#""Ports":"0.0.0.0:8080-\u003e80/tcp""#), "{}", lines[0]);
    let parsed: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(parsed["Names"], "日本");
    assert_eq!(parsed["RunningFor"], "24 hours ago");
    assert_eq!(parsed.as_object().unwrap().len(), ContainerRow::TITLES.len());
    // A field alone is not escaped.
    assert!(render(Some("{{json .Ports}}")).unwrap().starts_with("\"0.0.0.0:8080->80/tcp\"\n"));
}

#[test]
fn lists_without_rows() {
    let render = |format: &str| {
        let format = Format::parse(Some(format), ContainerRow::TABLE)?;
        format.render(ContainerRow::TITLES, &[])
    };
    assert_eq!(render("{{.Image}}").unwrap(), "");
    assert_eq!(render("json").unwrap(), "");
    assert_eq!(render(r"table {{.Image}}\t{{.Size}}").unwrap(), "IMAGE     SIZE\n");
    assert!(render("{{.Foo}}").unwrap_err().is_unknown_field());
    assert!(render("table {{.Foo}}").unwrap_err().is_unknown_field());
}

#[test]
fn errors() {
    for (format, text) in [
        ("{{.ID", "template parsing error: template: :1: unclosed action"),
        ("{{foo}}", r#"template parsing error: template: :1: function "foo" not defined"#),
        (
            "{{.Foo}}",
            r#"template parsing error: template: :1:2: executing "" at <.Foo>: can't evaluate field Foo; "#,
        ),
        (
            r#"{{.Label "a"}}{{.Label}}"#,
            r#"template parsing error: template: :1:16: executing "" at <.Label>: wrong number of args for Label: want 1 got 0"#,
        ),
        (
            r#"{{.State "x"}}"#,
            r#"template parsing error: template: :1:2: executing "" at <.State>: wrong number of args for State: want 0 got 1"#,
        ),
    ] {
        let error = render(Some(format)).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

#[test]
fn quiet_lists_and_fields_in_use() {
    let format = Format::quiet("ID").unwrap();
    let text = format.render(ContainerRow::TITLES, &[row("a", "b", "c", &[])]).unwrap();
    assert_eq!(text, "a\n");
    for (format, uses) in [
        (None, false),
        (Some("json"), true),
        (Some("{{json .}}"), true),
        (Some("{{.Size}}"), true),
        (Some("{{upper .Size}}"), true),
        (Some("{{.ID}}"), false),
    ] {
        assert_eq!(Format::parse(format, ContainerRow::TABLE).unwrap().uses("Size"), uses, "{format:?}");
    }
}

#[test]
fn fields_have_titles_and_tables_have_fields() {
    fn check(fields: &impl Serialize, titles: &Titles, tables: &[&str]) {
        let row = Row::new(fields, BTreeMap::new()).unwrap();
        let mut named: Vec<&str> = titles.iter().map(|(field, _)| *field).collect();
        named.sort_unstable();
        let mut fields: Vec<&str> = row.fields.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, named);
        for table in tables {
            let text = Format::parse(None, table).unwrap().render(titles, &[]).unwrap();
            assert!(!text.contains("<no value>"), "{text}");
        }
    }
    let tables = [ContainerRow::TABLE, ContainerRow::TABLE_WITH_SIZE];
    check(&ContainerRow::default(), ContainerRow::TITLES, &tables);
    check(&ImageRow::default(), ImageRow::TITLES, &[ImageRow::TABLE, ImageRow::TABLE_WITH_DIGESTS]);
    check(&NetworkRow::default(), NetworkRow::TITLES, &[NetworkRow::TABLE]);
    check(&VolumeRow::default(), VolumeRow::TITLES, &[VolumeRow::TABLE]);
    check(&StatsRow::default(), StatsRow::TITLES, &[StatsRow::TABLE]);
}
