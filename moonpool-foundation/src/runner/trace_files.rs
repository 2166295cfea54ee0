//! `MOONPOOL_TRACE`: a seed's steps as files, one JSON object per line, and in the Chrome trace-event
//! format that Perfetto opens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::orchestrator;
use super::plan::Plan;
use crate::sim::{TraceMode, TraceStep};

/// Steps that are kept at a time: some 30 MB. Each window costs a run of the seed.
const WINDOW: u64 = 250_000;

/// A step, as a line of the JSON file.
#[derive(Serialize)]
struct Line<'a> {
    seed: u64,
    step: u64,
    at_nanos: u128,
    process: Option<&'a str>,
    what: &'a str,
    digest: String,
}

/// A step, as Chrome's format has it: an instant on the row of its process.
#[derive(Serialize)]
struct ChromeEvent<'a> {
    name: &'a str,
    ph: &'static str,
    /// Microseconds, with the nanoseconds behind the point.
    ts: f64,
    pid: u32,
    tid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    args: ChromeArgs<'a>,
}

#[derive(Serialize)]
struct ChromeArgs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
}

/// The row of steps that belong to no process: what the network does, and timers.
const NETWORK_ROW: &str = "network and timers";

/// Makes `dir` if it is not there, and tries whether files can be made in it.
pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let probe = dir.join(format!(".moonpool-{}", std::process::id()));
    File::create(&probe)?;
    // Another campaign of this process may have removed it already.
    drop(std::fs::remove_file(&probe));
    Ok(())
}

/// Runs `seed` again and writes its steps to `dir`, which is made if it is not there. Gives the two
/// files.
pub(super) fn write(plan: &Plan<'_>, seed: u64, dir: &Path) -> io::Result<[PathBuf; 2]> {
    std::fs::create_dir_all(dir)?;
    let paths = ["jsonl", "trace.json"].map(|kind| dir.join(format!("seed-{seed}.{kind}")));
    let [lines, chrome] = &paths;
    let mut lines = BufWriter::new(File::create(lines)?);
    let mut chrome = BufWriter::new(File::create(chrome)?);
    write_steps(seed, WINDOW, &mut lines, &mut chrome, |window| {
        orchestrator::run_recorded(plan, seed, TraceMode::Full, window)
            .1
            .steps
    })?;
    lines.flush()?;
    chrome.flush()?;
    Ok(paths)
}

/// Writes what `run` gives, `size` steps at a time, until it gives fewer.
fn write_steps(
    seed: u64,
    size: u64,
    lines: &mut impl Write,
    chrome: &mut impl Write,
    mut run: impl FnMut(Range<u64>) -> Vec<TraceStep>,
) -> io::Result<()> {
    let mut rows = BTreeMap::new();
    chrome.write_all(b"[")?;
    let mut begin = 0;
    loop {
        let steps = run(begin..begin + size);
        begin += size;
        for step in &steps {
            write_line(lines, seed, step)?;
            write_chrome(chrome, &mut rows, step)?;
        }
        if (steps.len() as u64) < size {
            break;
        }
    }
    chrome.write_all(b"\n]\n")
}

fn write_line(lines: &mut impl Write, seed: u64, step: &TraceStep) -> io::Result<()> {
    let line = Line {
        seed,
        step: step.index,
        at_nanos: step.at.as_nanos(),
        process: step.process.as_deref(),
        what: &step.what,
        digest: format!("{:016x}", step.digest),
    };
    serde_json::to_writer(&mut *lines, &line)?;
    lines.write_all(b"\n")
}

fn write_chrome(
    chrome: &mut impl Write,
    rows: &mut BTreeMap<String, usize>,
    step: &TraceStep,
) -> io::Result<()> {
    let process = step.process.as_deref().unwrap_or(NETWORK_ROW);
    let first = rows.is_empty();
    let next = rows.len();
    let row = *rows.entry(process.to_owned()).or_insert(next);
    let ts = step.at.as_secs_f64() * 1e6;
    if row == next {
        let named = ChromeEvent {
            name: "thread_name",
            ph: "M",
            ts,
            pid: 1,
            tid: row,
            s: None,
            args: ChromeArgs {
                name: Some(process),
                step: None,
            },
        };
        chrome.write_all(if first { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *chrome, &named)?;
    }
    let event = ChromeEvent {
        name: &step.what,
        ph: "i",
        ts,
        pid: 1,
        tid: row,
        s: Some("t"),
        args: ChromeArgs {
            name: None,
            step: Some(step.index),
        },
    };
    chrome.write_all(b",\n")?;
    serde_json::to_writer(&mut *chrome, &event)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn step(index: u64, process: Option<&str>) -> TraceStep {
        TraceStep {
            index,
            at: Duration::from_nanos(1_500 * index),
            process: process.map(str::to_owned),
            what: format!("step \"{index}\""),
            digest: 7,
        }
    }

    #[test]
    fn every_step_is_a_line_and_an_instant_on_the_row_of_its_process() {
        let (mut lines, mut chrome) = (Vec::new(), Vec::new());
        let steps = vec![
            step(0, Some("server")),
            step(1, None),
            step(2, Some("server")),
        ];
        write_steps(9, 10, &mut lines, &mut chrome, |_| steps.clone()).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(
            lines.lines().nth(1),
            Some(
                r#"{"seed":9,"step":1,"at_nanos":1500,"process":null,"what":"step \"1\"","digest":"0000000000000007"}"#
            )
        );
        let events: Vec<serde_json::Value> = serde_json::from_slice(&chrome).unwrap();
        let rows: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event["ph"].as_str().unwrap(),
                    event["tid"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(rows, [("M", 0), ("i", 0), ("M", 1), ("i", 1), ("i", 0)]);
        assert_eq!(events[0]["args"]["name"], "server");
        assert_eq!(events[3]["ts"], 1.5);
    }

    #[test]
    fn long_runs_are_written_window_by_window_and_whole() {
        let (mut lines, mut chrome) = (Vec::new(), Vec::new());
        let total = 23;
        write_steps(1, 10, &mut lines, &mut chrome, |window| {
            let end = window.end.min(total);
            (window.start..end).map(|index| step(index, None)).collect()
        })
        .unwrap();
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(count as u64, total);
    }
}
