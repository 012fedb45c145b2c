//! What every command prints the same way: errors, tables, JSON.

use std::io::{self, Write};

use husk_base::{
    chain,
    log::{self, Level},
};
use serde::Serialize;

/// Docker's exit code for a failure of its own, where another could be taken for a container's.
pub(crate) const FAILURE: u8 = 125;

/// Prints an error with all its causes, once, on one line where they are short.
pub(crate) fn print_error(error: &anyhow::Error) {
    print_note(&format!("husk: {}\n", chain::text(error.as_ref())));
}

/// From now on, warnings are printed: what the user should know, and is not a failure.
pub(crate) fn print_warnings() {
    log::init(Level::WARN, |metadata, text| {
        // What libraries have to say is in husk's errors.
        if log::is_ours(metadata) {
            print_note(&format!("husk: note: {text}\n"));
        }
    });
}

/// Prints text to standard error. That may be a terminal which is gone, and then nobody misses it.
pub(crate) fn print_note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The exit code that an error asks for; `failure`, if it is one of husk's own.
pub(crate) fn exit_code(error: &anyhow::Error, failure: u8) -> u8 {
    match error.downcast_ref::<husk_sandbox::Error>().map_or(FAILURE, husk_sandbox::Error::exit_code) {
        FAILURE => failure,
        code => code,
    }
}

/// Ends husk. A thread may still be blocked in a read of standard input: nobody waits for it.
pub(crate) fn exit(code: u8) -> ! {
    let _ = io::stdout().flush();
    std::process::exit(code.into())
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value)?)
}

/// Prints rows in columns as wide as they need to be; the first row is the heading.
pub(crate) fn print_table<const N: usize>(rows: &[[String; N]]) -> anyhow::Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        print_line(cells.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(())
}

/// Prints text that ends with a newline. A reader that has left is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit(0),
        result => Ok(result?),
    }
}

/// Prints a line. A reader that has left is no failure.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit(0),
        result => Ok(result?),
    }
}
