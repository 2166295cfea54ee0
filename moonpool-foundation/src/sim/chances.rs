//! What a configuration says of faults, as the simulator asks it.

use super::chance::{Chance, Span};
use crate::chaos::ConnectFailureMode;
use crate::network::NetworkConfiguration;

/// What may happen by chance, as thresholds.
#[derive(Debug)]
pub(super) struct Chances {
    pub(super) asymmetric_delay: Chance,
    pub(super) segmentation: Chance,
    pub(super) partial_write: Chance,
    pub(super) partial_read: Chance,
    pub(super) random_close: Chance,
    pub(super) explicit: Chance,
    pub(super) packet_loss: Chance,
    pub(super) write_clog: Chance,
    pub(super) read_clog: Chance,
    pub(super) cut: Chance,
    pub(super) partition: Chance,
    pub(super) long_partition: Chance,
    pub(super) bit_flip: Chance,
    pub(super) connect_activation: Chance,
    pub(super) connect_firing: Chance,
    pub(super) connect_refused: Chance,
    pub(super) reset: Chance,
}

impl Chances {
    pub(super) fn of(config: &NetworkConfiguration) -> Self {
        let chaos = &config.chaos;
        let refused = match chaos.connect_failure_mode {
            ConnectFailureMode::AlwaysFail => Chance::of(1.0),
            ConnectFailureMode::Probabilistic => Chance::of(chaos.connect_failure_probability),
            ConnectFailureMode::Disabled => Chance::NEVER,
        };
        let firing = match chaos.connect_failure_mode {
            ConnectFailureMode::Disabled => Chance::NEVER,
            _ => Chance::of(chaos.connect_failure_firing),
        };
        Self {
            asymmetric_delay: Chance::of(config.asymmetric_delay_probability),
            segmentation: Chance::of(config.segmentation_probability),
            partial_write: Chance::of(config.partial_write_probability),
            partial_read: Chance::of(config.partial_read_probability),
            random_close: Chance::of(config.random_close_probability),
            explicit: Chance::of(config.random_close_explicit_ratio),
            packet_loss: Chance::of(config.packet_loss_probability),
            write_clog: Chance::of(chaos.write_clog_probability),
            read_clog: Chance::of(chaos.read_clog_probability),
            cut: Chance::of(chaos.cut_probability),
            partition: Chance::of(chaos.partition_probability),
            long_partition: Chance::of(chaos.partition_long_probability),
            bit_flip: Chance::of(chaos.bit_flip_probability),
            connect_activation: Chance::of(chaos.connect_failure_activation),
            connect_firing: firing,
            connect_refused: refused,
            reset: Chance::of(chaos.reset_probability),
        }
    }

    pub(super) fn on_write(&self) -> bool {
        let chances = [
            self.write_clog,
            self.random_close,
            self.partial_write,
            self.cut,
            self.partition,
        ];
        chances.iter().any(|chance| !chance.is_off())
    }

    /// Whether nothing that is off by them meets a write, or the segments that it sends.
    pub(super) fn are_calm(&self) -> bool {
        !self.on_write() && self.segmentation.is_off() && self.packet_loss.is_off()
    }

    pub(super) fn on_read(&self) -> bool {
        let chances = [self.read_clog, self.random_close, self.partial_read];
        chances.iter().any(|chance| !chance.is_off())
    }
}

/// How long things last that last a while.
#[derive(Debug)]
pub(super) struct Spans {
    pub(super) asymmetric_delay: Span,
    pub(super) clog: Span,
    pub(super) cut: Span,
    pub(super) partition: Span,
    pub(super) long_partition: Span,
}

impl Spans {
    pub(super) fn of(config: &NetworkConfiguration) -> Self {
        Self {
            asymmetric_delay: Span::of(&config.asymmetric_delay),
            clog: Span::of(&config.chaos.clog_duration),
            cut: Span::of(&config.chaos.cut_duration),
            partition: Span::of(&config.chaos.partition_duration),
            long_partition: Span::of(&config.chaos.partition_long_duration),
        }
    }
}
