//! Parts by themselves: the event queue, packets.

use std::hint::black_box;

use bench_common::{Arguments, Measurement, Numbers, Order, PAYLOAD, print};
use moonpool::UID;
use moonpool::foundation::{PacketProbe, QueueProbe};

const TOKEN: UID = UID::new(1, 2);

/// Takes the earliest of `pending` events out and puts one in, up to 100 ms later.
pub fn pop_and_push(arguments: &Arguments) {
    let pending: u64 = arguments.number("pending", 1000);
    let count: u64 = arguments.number("n", 1_000_000);
    let mut numbers = Numbers::new(1);
    let mut queue = QueueProbe::default();
    for event in 0..pending {
        queue.push(numbers.next() % 100_000_000, event);
    }
    let mut order = Order::default();
    let mut turn = || {
        let (at, event) = queue.pop().unwrap();
        order.note(at);
        queue.push(at + numbers.next() % 100_000_000, event);
    };
    // Until the times are spread as they will stay.
    for _ in 0..pending {
        turn();
    }
    let measurement = Measurement::begin();
    for _ in 0..count {
        turn();
    }
    measurement.end(count);
    while let Some((at, event)) = queue.pop() {
        order.note_left(at, event);
    }
    print("checksum", order.checksum());
}

/// Packets of one write.
const BATCH: u32 = 16;

/// Encodes packets of 64 bytes, as many of them for a write as a busy connection has.
pub fn encode_packets(count: u64) {
    let payload = [7; PAYLOAD];
    let mut probe = PacketProbe::default();
    let measurement = Measurement::begin();
    for _ in 0..count / u64::from(BATCH) {
        probe.encode(TOKEN, black_box(&payload), BATCH, |slices| {
            black_box(slices);
        });
    }
    measurement.end(count / u64::from(BATCH) * u64::from(BATCH));
}

/// Decodes them, as many from a read.
pub fn decode_packets(count: u64) {
    let mut probe = PacketProbe::default();
    let mut read = Vec::new();
    probe.encode(TOKEN, &[7; PAYLOAD], BATCH, |slices| {
        read.extend(slices.iter().flat_map(|slice| slice.iter().copied()));
    });
    let mut decoded = 0;
    let measurement = Measurement::begin();
    for _ in 0..count / u64::from(BATCH) {
        let deliver = |token, payload: &[u8]| {
            black_box((token, payload));
            decoded += 1;
        };
        probe.decode(black_box(&read), deliver).unwrap();
    }
    measurement.end(decoded);
    assert_eq!(decoded, count / u64::from(BATCH) * u64::from(BATCH));
}
