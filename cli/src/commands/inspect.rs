//! `husk inspect`, `husk container inspect` and `husk image inspect`

use husk_image::{Reference, Store as Images};
use husk_sandbox::{Error, network, paths::Dirs, rundir, store::Store};
use serde::Serialize;
use serde_json::{Value, ser::PrettyFormatter};

use crate::{
    args::{InspectArgs, InspectContainersArgs, InspectImagesArgs, ObjectType},
    describe::{self, Files},
    facts, output,
    template::{Subject, Template},
};

/// Docker indents by so much.
const INDENT: &[u8] = b"    ";

pub(crate) fn any(dirs: &Dirs, args: &InspectArgs) -> anyhow::Result<u8> {
    let order = match &args.r#type {
        Some(one) => vec![*one],
        None => vec![ObjectType::Container, ObjectType::Image, ObjectType::Network],
    };
    inspect("object", &args.names, args.format.as_deref(), |name| {
        for kind in &order {
            let found = match kind {
                ObjectType::Container => container(dirs, name, args.size)?,
                ObjectType::Image => image(dirs, name)?,
                ObjectType::Network => network_of(dirs, name)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    })
}

pub(crate) fn containers(dirs: &Dirs, args: &InspectContainersArgs) -> anyhow::Result<u8> {
    inspect("container", &args.containers, args.format.as_deref(), |name| container(dirs, name, args.size))
}

pub(crate) fn images(dirs: &Dirs, args: &InspectImagesArgs) -> anyhow::Result<u8> {
    inspect("image", &args.images, args.format.as_deref(), |name| image(dirs, name))
}

/// Docker's exit code for a template that is none.
const BAD_TEMPLATE: u8 = 64;

/// Prints what is found of these names; those that are missing are named, and do not keep the others.
fn inspect(
    kind: &str,
    names: &[String],
    format: Option<&str>,
    mut find: impl FnMut(&str) -> anyhow::Result<Option<Value>>,
) -> anyhow::Result<u8> {
    let template = match format.filter(|format| *format != "json").map(Template::parse).transpose() {
        Ok(template) => template,
        Err(error) => {
            output::print_note(&format!("{error}\n"));
            return Ok(BAD_TEMPLATE);
        }
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match find(name) {
            Ok(Some(value)) => found.push(value),
            Ok(None) => failures.push(format!("Error: No such {kind}: {name}")),
            Err(error) => failures.push(format!("Error: {error:#}")),
        }
    }
    match template {
        Some(template) => match render(&template, &found) {
            Ok(text) => output::print(&text)?,
            Err(error) => failures.push(error.to_string()),
        },
        None if format.is_some() => output::print_line(&serde_json::to_string(&found)?)?,
        None => output::print_line(&indented(&found)?)?,
    }
    for failure in &failures {
        output::print_note(&format!("{failure}\n"));
    }
    Ok(u8::from(!failures.is_empty()))
}

/// A line for each; an empty one for none, as Docker has it.
fn render(template: &Template, found: &[Value]) -> Result<String, crate::template::Error> {
    if found.is_empty() {
        return Ok("\n".into());
    }
    found.iter().map(|value| Ok(template.render(Subject::Document(value))? + "\n")).collect()
}

fn indented(found: &[Value]) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(INDENT);
    found.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    Ok(String::from_utf8(text)?)
}

fn container(dirs: &Dirs, name: &str, size: bool) -> anyhow::Result<Option<Value>> {
    let store = Store::open(dirs)?;
    let id = match store.find(name) {
        Err(Error::NoContainer { .. }) => return Ok(None),
        found => found?,
    };
    let record = store.get(&id)?;
    let size = size.then(|| facts::size(&store, &record.config));
    let (dir, log, scratch) = (store.dir(&id), store.log(&id), store.scratch(&id));
    let files = Files { dir: &dir, log: &log, scratch: &scratch };
    Ok(Some(describe::container(&record, files, size)))
}

fn image(dirs: &Dirs, name: &str) -> anyhow::Result<Option<Value>> {
    let store = Images::open(&dirs.images())?;
    // What is neither a name nor an id is the name of nothing.
    let Ok(Some(image)) = store.find(name) else { return Ok(None) };
    let same = store.list()?.into_iter().filter(|other| other.config_digest == image.config_digest);
    let names: Vec<Reference> = same.filter_map(|image| image.reference).collect();
    Ok(Some(describe::image(&image, &names)))
}

fn network_of(dirs: &Dirs, name: &str) -> anyhow::Result<Option<Value>> {
    let networks = network::networks(dirs)?;
    let Ok(definition) = networks.get(name) else { return Ok(None) };
    let mut leases = networks.leases(&definition)?;
    leases.retain(|lease| rundir::is_alive(dirs, &lease.sandbox));
    Ok(Some(describe::network(&definition, &leases)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_an_empty_array_or_line() {
        assert_eq!(indented(&[]).unwrap(), "[]");
        assert_eq!(render(&Template::parse("{{.Id}}").unwrap(), &[]).unwrap(), "\n");
    }

    #[test]
    fn each_object_has_its_line() {
        let found = [json!({ "Id": "a" }), json!({ "Id": "b" })];
        assert_eq!(render(&Template::parse("{{.ID}}").unwrap(), &found).unwrap(), "a\nb\n");
        assert_eq!(indented(&found[..1]).unwrap(), "[\n    {\n        \"Id\": \"a\"\n    }\n]");
    }
}
