//! The way of a container's bytes: its standard streams, over vsock.

use std::{
    io::{Read, Write},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use super::{
    install::{IMAGE, Installed},
    process::Running,
};
use crate::{
    measure::{ms_between, now_ns},
    plan::Plan,
    result::Measurement,
};

const MIB: usize = 1 << 20;
const TOTAL_MIB: usize = 128;
const GROUP: &str = "streams of a container, over vsock";

/// Output and input of `husk run`, from the first byte to the last.
pub(super) fn measure(plan: &Plan, installed: &Installed) -> Result<Vec<Measurement>> {
    let (mut output, mut input) = (Vec::new(), Vec::new());
    for number in 0..plan.rounds {
        eprintln!("round {} of {}: streams", number + 1, plan.rounds);
        output.push(read_output(installed)?);
        input.push(write_input(installed)?);
    }
    Ok([("stream-out", "standard output", output), ("stream-in", "standard input", input)]
        .map(|(id, label, samples)| Measurement {
            id: id.into(),
            group: GROUP.into(),
            label: label.into(),
            own: true,
            unit: "MB/s".into(),
            more_is_better: true,
            along: None,
            samples,
            stages: Vec::new(),
            counts: Vec::new(),
        })
        .into())
}

fn container(installed: &Installed, script: &str) -> Result<Running> {
    let mut command = installed.husk();
    command.args(["run", "--rm", "-i", "--network", "none", IMAGE, "sh", "-c", script]);
    Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

fn read_output(installed: &Installed) -> Result<f64> {
    let mut running = container(installed, &format!("dd if=/dev/zero bs=1M count={TOTAL_MIB} 2>/dev/null"))?;
    let mut output = running.child().stdout.take().context("no standard output")?;
    let mut buffer = vec![0; MIB];
    let mut total = output.read(&mut buffer)?;
    let (start, first) = (now_ns(), total);
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        total += count;
    }
    let end = now_ns();
    ensure!(total == TOTAL_MIB * MIB, "the container wrote {total} bytes");
    ensure!(running.wait()?.success(), "the container failed");
    Ok(rate(total - first, start, end))
}

fn write_input(installed: &Installed) -> Result<f64> {
    let mut running = container(installed, "echo ready; wc -c")?;
    let mut input = running.child().stdin.take().context("no standard input")?;
    let mut output = running.child().stdout.take().context("no standard output")?;
    let mut ready = [0; 6];
    output.read_exact(&mut ready)?;
    let start = now_ns();
    let buffer = vec![0; MIB];
    for _ in 0..TOTAL_MIB {
        input.write_all(&buffer)?;
    }
    drop(input);
    let mut counted = String::new();
    output.read_to_string(&mut counted)?;
    let end = now_ns();
    ensure!(counted.trim() == (TOTAL_MIB * MIB).to_string(), "the container read {counted:?} bytes");
    ensure!(running.wait()?.success(), "the container failed");
    Ok(rate(TOTAL_MIB * MIB, start, end))
}

/// MB/s, of millions of bytes.
fn rate(bytes: usize, from_ns: u64, to_ns: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1000.0 / ms_between(from_ns, to_ns)
}
