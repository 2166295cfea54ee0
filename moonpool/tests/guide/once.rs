//! Retries, and the numbers that make them harmless.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use moonpool::foundation::{
    Attrition, SimProviders, SimulationBuilder, SimulationMetrics, WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{Client, RetryPolicy, SimulationError, define_interface, select, sometimes_assert};
use serde::{Deserialize, Serialize};

use super::store::listen;

// once
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Append {
    pub client: u64,
    /// Ascends with every line of this client. A repeated call has the number of the first.
    pub number: u64,
    pub line: String,
}

define_interface! {
    /// Lines, in the order of their arrival.
    pub Log, id 0x5701_4E02, {
        append: Append => u64,
    }
}

#[derive(Default)]
pub struct Lines {
    pub lines: Vec<String>,
    /// Of each client the number of its last line, and what it was answered. It has to be written
    /// together with the line, and kept as long as a client may repeat itself.
    pub answered: BTreeMap<u64, (u64, u64)>,
}

impl Lines {
    pub fn append(&mut self, append: Append) -> Result<u64, ReplyError> {
        let Append {
            client,
            number,
            line,
        } = append;
        if let Some((last, answer)) = self.answered.get(&client) {
            if number == *last {
                return Ok(*answer);
            }
            if number < *last {
                return Err(ReplyError::application(1, "an old line, repeated late"));
            }
        }
        self.lines.push(line);
        let answer = self.lines.len() as u64;
        self.answered.insert(client, (number, answer));
        Ok(answer)
    }
}

/// Appends a line once, however often it has to be sent.
pub async fn append(log: &Client<Log>, append: Append) -> Result<u64, ReplyError> {
    let policy = RetryPolicy::new().while_not_found();
    log.append(append)
        .timeout(Duration::from_secs(120))
        .retry(policy)
        .await
}
// end of once

const LINES: u64 = 20;

#[test]
fn numbered_lines_are_written_once_however_often_they_are_sent() {
    let server = |p: SimProviders, topology: WorkloadTopology| async move {
        let address = format!("{}:4500", topology.my_ip).parse().unwrap();
        let transport = listen(&p, address)
            .await
            .map_err(SimulationError::workload)?;
        let log = Log::serve(&transport, JsonCodec).map_err(SimulationError::workload)?;
        let disk: Rc<RefCell<Lines>> = topology.shared();
        loop {
            select! {
                () = topology.shutdown_signal.cancelled() => return Ok(()),
                Some((append, reply)) = log.append.recv() => {
                    let known = disk.borrow().answered.get(&append.client).copied();
                    let is_repeated = known.is_some_and(|(last, _)| append.number <= last);
                    sometimes_assert!(line_repeated, is_repeated, "a client sent it again");
                    let answer = disk.borrow_mut().append(append);
                    // Written, and not answered: this is where a kill hurts most.
                    p.time().sleep(Duration::from_millis(20)).await;
                    match answer {
                        Ok(position) => reply.send(position),
                        Err(error) => reply.send_error(error),
                    }
                }
            }
        }
    };
    let mut campaign = SimulationBuilder::new().process("log", server);
    for client in 0..2 {
        let workload = move |p: SimProviders, topology: WorkloadTopology| async move {
            let server = topology.get_peer_by_name("log").unwrap();
            let transport = FlowTransportBuilder::from_providers(&p).build();
            let address = format!("{server}:4500").parse().unwrap();
            let log = Log::remote(&transport, address, JsonCodec);
            for number in 1..=LINES {
                let line = format!("{client}: {number}");
                append(
                    &log,
                    Append {
                        client,
                        number,
                        line,
                    },
                )
                .await
                .map_err(SimulationError::workload)?;
            }
            let disk: Rc<RefCell<Lines>> = topology.shared();
            let own = format!("{client}: ");
            let written: Vec<String> = disk
                .borrow()
                .lines
                .iter()
                .filter(|line| line.starts_with(&own))
                .cloned()
                .collect();
            let expected: Vec<String> = (1..=LINES).map(|n| format!("{client}: {n}")).collect();
            assert_eq!(written, expected);
            transport.shutdown(Duration::from_secs(1)).await;
            Ok(SimulationMetrics::default())
        };
        campaign = campaign.register_providers_workload(format!("client-{client}"), workload);
    }
    let report = campaign
        .attrition(Attrition {
            probability: 0.5,
            ..Attrition::default()
        })
        .use_random_config()
        .shutdown_after_all()
        .require_coverage()
        .run();
    report.assert_passed();
}
