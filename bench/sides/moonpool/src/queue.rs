//! Parts by themselves: the event queue, packets.

use std::hint::black_box;

use bench_common::{Arguments, Measurement, Numbers};
use moonpool::UID;
use moonpool::foundation::{QueueProbe, deserialize_packet, serialize_packet};

/// Takes the earliest of `pending` events out and puts one in, up to 100 ms later.
pub fn pop_and_push(arguments: &Arguments) {
    let pending: u64 = arguments.number("pending", 1000);
    let count: u64 = arguments.number("n", 1_000_000);
    let mut numbers = Numbers::new(1);
    let mut queue = QueueProbe::default();
    for event in 0..pending {
        queue.push(numbers.next() % 100_000_000, event);
    }
    let turn = |queue: &mut QueueProbe, numbers: &mut Numbers| {
        let (at, event) = queue.pop().unwrap();
        queue.push(at + numbers.next() % 100_000_000, event);
    };
    // Until the times are spread as they will stay.
    for _ in 0..pending {
        turn(&mut queue, &mut numbers);
    }
    let measurement = Measurement::begin();
    for _ in 0..count {
        turn(&mut queue, &mut numbers);
    }
    measurement.end(count);
    black_box(queue.pop());
}

/// Encodes and decodes a packet of 64 bytes.
pub fn packets(count: u64) {
    let payload = [7; bench_common::PAYLOAD];
    let token = UID::new(1, 2);
    let measurement = Measurement::begin();
    for _ in 0..count {
        let bytes = serialize_packet(black_box(token), black_box(&payload));
        black_box(deserialize_packet(black_box(&bytes)).unwrap());
    }
    measurement.end(count);
}
