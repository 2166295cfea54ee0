//! Tests of the network: the same behaviour on real sockets and in the simulator.

mod network {
    mod conformance;
}
