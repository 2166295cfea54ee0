//! Random interleavings of sending, writing, losing and closing, against what must hold.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Send {
        payload_bytes: usize,
    },
    SendUnreliable,
    /// Time passes, and both ends do what they decide.
    Turn {
        ms: u64,
    },
    /// This many bytes get from one end's queue into the pipe.
    Write {
        bytes: usize,
        end: End,
    },
    /// This many bytes get out of the pipe.
    Read {
        bytes: usize,
        end: End,
    },
    Cut,
    Reconnect,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Dialler,
    Acceptor,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let end = prop_oneof![Just(End::Dialler), Just(End::Acceptor)];
    let op = prop_oneof![
        6 => (8usize..3_000).prop_map(|payload_bytes| Op::Send { payload_bytes }),
        1 => Just(Op::SendUnreliable),
        8 => (0u64..200).prop_map(|ms| Op::Turn { ms }),
        8 => (1usize..5_000, end.clone()).prop_map(|(bytes, end)| Op::Write { bytes, end }),
        8 => (1usize..5_000, end).prop_map(|(bytes, end)| Op::Read { bytes, end }),
        1 => Just(Op::Cut),
        1 => Just(Op::Reconnect),
    ];
    proptest::collection::vec(op, 0..200)
}

/// One end's half of a connection: what it has written and the other has not read.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// Read, but not a whole packet yet.
    partial: Vec<u8>,
}

/// A dialler, and whichever acceptor its current connection leads to.
struct Model {
    now: Duration,
    dialler: Kit,
    acceptor: Option<Kit>,
    up: Pipe,
    down: Pipe,
    /// Ids in the order in which the acceptors delivered them.
    delivered: Vec<u64>,
    unreliable_delivered: usize,
    reports: Vec<SessionEnded>,
    sent: u64,
    acknowledged_by_report: u64,
}

impl Model {
    fn new(patience: Option<Duration>) -> Self {
        Self {
            now: ZERO,
            dialler: Kit::dialler(PeerConfig {
                patience,
                ..PeerConfig::default()
            }),
            acceptor: None,
            up: Pipe::default(),
            down: Pipe::default(),
            delivered: Vec::new(),
            unreliable_delivered: 0,
            reports: Vec::new(),
            sent: 0,
            acknowledged_by_report: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Send { payload_bytes } => self.send(payload_bytes),
            Op::SendUnreliable => {
                self.dialler
                    .handle
                    .send_unreliable(TOKEN, "u".into())
                    .unwrap();
            }
            Op::Turn { ms: passed } => {
                self.now += ms(passed);
                self.turn();
            }
            Op::Write { bytes, end } => self.write(bytes, end),
            Op::Read { bytes, end } => self.read(bytes, end),
            Op::Cut => self.cut(lost()),
            Op::Reconnect => self.dialler.handle.reconnect(),
        }
        self.collect();
    }

    fn send(&mut self, payload_bytes: usize) {
        self.sent += 1;
        let mut payload = vec![0; payload_bytes];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        let id = self
            .dialler
            .handle
            .send_reliable(TOKEN, payload.into())
            .unwrap();
        assert_eq!(id.get(), self.sent);
        if let Some(acceptor) = &self.acceptor {
            // Acknowledgements ride on what goes the other way, too.
            let _ = acceptor.handle.send_reliable(TOKEN, "back".into());
        }
    }

    fn turn(&mut self) {
        match self.dialler.decide(self.now) {
            Action::Connect => {
                self.dialler.connected(self.now);
                self.acceptor = Some(Kit::acceptor(self.now));
            }
            Action::Disconnect(cause) => self.cut(cause),
            Action::Wait | Action::Shutdown | Action::Finish => {}
        }
        let decided = self
            .acceptor
            .as_ref()
            .map(|acceptor| acceptor.decide(self.now));
        if let Some(Action::Disconnect(cause)) = decided {
            self.cut(cause);
        }
    }

    fn write(&mut self, bytes: usize, end: End) {
        match (end, &self.acceptor) {
            (End::Dialler, Some(_)) => self.up.bytes.extend(self.dialler.write(bytes)),
            (End::Acceptor, Some(acceptor)) => self.down.bytes.extend(acceptor.write(bytes)),
            (_, None) => {}
        }
    }

    fn read(&mut self, bytes: usize, end: End) {
        let Some(acceptor) = &self.acceptor else {
            return;
        };
        let (pipe, kit) = match end {
            End::Acceptor => (&mut self.up, acceptor),
            End::Dialler => (&mut self.down, &self.dialler),
        };
        let taken = bytes.min(pipe.bytes.len());
        pipe.partial.extend(pipe.bytes.drain(..taken));
        while let Some(packet) = try_deserialize_packet(&pipe.partial, 1 << 20).unwrap() {
            let (size, token, payload) = (packet.size, packet.token, packet.payload.to_vec());
            pipe.partial.drain(..size);
            let delivered = kit.packet(self.now, token, &payload);
            if delivered == Err(ConnectionError::RemoteClosed) {
                return self.cut(ConnectionError::Ended);
            }
            match (
                delivered.expect("two correct ends understand each other"),
                end,
            ) {
                (Some((_, payload, true)), End::Acceptor) => {
                    let id = payload.first_chunk().map(|id| u64::from_le_bytes(*id));
                    self.delivered.push(id.unwrap());
                }
                (Some((.., false)), _) => self.unreliable_delivered += 1,
                (Some((.., true)), End::Dialler) | (None, _) => {}
            }
        }
    }

    fn cut(&mut self, cause: ConnectionError) {
        if self.acceptor.take().is_some() {
            self.up = Pipe::default();
            self.down = Pipe::default();
            self.dialler.closed(self.now, cause);
        }
    }

    fn collect(&mut self) {
        for event in self.dialler.events() {
            let Event::SessionEnded(ended) = event else {
                panic!("{event:?}");
            };
            self.check_report(&ended);
            self.reports.push(ended);
        }
    }

    fn check_report(&mut self, ended: &SessionEnded) {
        let (maybe, not) = (&ended.maybe_delivered, &ended.not_delivered);
        assert!(maybe.start <= maybe.end && maybe.end == not.start && not.start <= not.end);
        assert!(
            maybe.start.get() > self.acknowledged_by_report,
            "nothing is reported twice"
        );
        // What lies between two reports was acknowledged, so it was delivered.
        for id in self.acknowledged_by_report + 1..maybe.start.get() {
            assert!(
                self.delivered.contains(&id),
                "{id} counts as delivered and was not"
            );
        }
        self.acknowledged_by_report = not.end.get() - 1;
    }

    /// Everything works from now on, until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.now += ms(50);
            self.turn();
            for end in [End::Dialler, End::Acceptor] {
                self.write(usize::MAX, end);
                self.read(usize::MAX, End::Acceptor);
                self.read(usize::MAX, End::Dialler);
            }
            self.collect();
            if self.dialler.handle.is_finished() {
                return;
            }
            let metrics = self.dialler.handle.metrics();
            if metrics.reliable_queued == 0 {
                self.dialler.handle.start_close(ms(60_000));
            }
        }
        panic!(
            "the peer never came to rest: {:?}",
            self.dialler.handle.metrics()
        );
    }

    fn check_end(&self) {
        let delivered: BTreeSet<u64> = self.delivered.iter().copied().collect();
        assert!(self.delivered.is_sorted(), "{:?}", self.delivered);
        assert_eq!(
            delivered.len(),
            self.delivered.len(),
            "something was delivered twice"
        );
        let inside = |range: &Range<PacketId>, id| range.contains(&PacketId::new(id));
        for id in 1..=self.sent {
            let not = self
                .reports
                .iter()
                .any(|ended| inside(&ended.not_delivered, id));
            let maybe = self
                .reports
                .iter()
                .any(|ended| inside(&ended.maybe_delivered, id));
            assert!(!(not && maybe));
            assert!(
                !(not && delivered.contains(&id)),
                "{id} was delivered all the same"
            );
            assert!(
                not || maybe || delivered.contains(&id),
                "{id} was lost without a word"
            );
        }
        let metrics = self.dialler.handle.metrics();
        let gauges = [
            metrics.reliable_queued,
            metrics.reliable_bytes,
            metrics.unacknowledged,
            metrics.unreliable_queued,
            metrics.unreliable_bytes,
        ];
        assert_eq!(gauges, [0; 5]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_accepted_packet_is_delivered_once_in_order_or_reported(
        ops in ops(),
        has_patience: bool,
    ) {
        let mut model = Model::new(has_patience.then_some(ms(500)));
        for op in &ops {
            model.apply(op);
        }
        model.settle();
        model.check_end();
    }
}
