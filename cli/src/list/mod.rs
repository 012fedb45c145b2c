//! What `--format` does for commands that list things: a table, JSON, or lines of a template.

pub(crate) mod rows;
mod tabwriter;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::template::{Error, Subject, Template};

/// The titles of a table's columns: names of fields with their titles.
pub(crate) type Titles = [(&'static str, &'static str)];

/// A thing that is listed.
#[derive(Debug)]
pub(crate) struct Row {
    fields: Value,
    labels: BTreeMap<String, String>,
}

impl Row {
    /// A row with the fields of a struct in [`rows`], and the labels that `.Label "key"` looks into.
    ///
    /// # Errors
    /// The fields are not JSON.
    pub(crate) fn new(fields: &impl Serialize, labels: BTreeMap<String, String>) -> serde_json::Result<Self> {
        Ok(Self { fields: serde_json::to_value(fields)?, labels })
    }
}

/// The form of a list.
#[derive(Debug)]
pub(crate) struct Format {
    template: Template,
    source: String,
    table: bool,
}

impl Format {
    /// The form that a user asks for: `table`, `table TEMPLATE`, `json` or a template. Without one, and for
    /// `table` alone, it is `default`: what follows the word `table`. `\t` and `\n` stand for tabs and newlines.
    ///
    /// # Errors
    /// The template has a syntax error.
    pub(crate) fn parse(format: Option<&str>, default: &str) -> Result<Self, Error> {
        let (source, table) = match format.unwrap_or("table") {
            "json" => ("{{json .}}", false),
            format => match format.strip_prefix("table").map(|rest| rest.trim_matches(' ')) {
                Some("") => (default, true),
                Some(template) => (template, true),
                None => (format.trim_matches(' '), false),
            },
        };
        let source = source.replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { template: Template::parse(&source)?, source, table })
    }

    /// One field of each row, as `--quiet` prints it.
    ///
    /// # Errors
    /// The name is not one of a field.
    pub(crate) fn quiet(field: &str) -> Result<Self, Error> {
        Self::parse(Some(&format!("{{{{.{field}}}}}")), "")
    }

    /// The form may show this field: fields that cost time are worth it only then.
    pub(crate) fn uses(&self, field: &str) -> bool {
        self.source.contains(&format!(".{field}")) || self.source.contains("json .}")
    }

    /// The list with a newline at its end. A table without rows has its titles.
    ///
    /// # Errors
    /// The template names a field that rows don't have, or does what its values can't do.
    pub(crate) fn render(&self, titles: &Titles, rows: &[Row]) -> Result<String, Error> {
        let titles = titles.iter().map(|(field, title)| ((*field).to_owned(), Value::from(*title))).collect();
        // The titles have the rows' fields: a wrong name is found even if there are no rows.
        let head = match self.template.render(Subject::Header(&Value::Object(titles))) {
            Err(error) if error.is_unknown_field() => return Err(error),
            // A title can't be all that a value can: Docker prints an empty line then.
            head => head.unwrap_or_default(),
        };
        let mut text = String::new();
        if self.table {
            text = head + "\n";
        }
        for row in rows {
            let subject = Subject::Row { fields: &row.fields, labels: &row.labels };
            text += &self.template.render(subject)?;
            text.push('\n');
        }
        Ok(if self.table { tabwriter::align(&text) } else { text })
    }
}
