//! Reading deliveries.

use bytes::Bytes;

use crate::task::{Delivery, DeliveryId, DeliveryStatus, TaskId};

/// A delivery with what it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedDelivery {
    pub delivery: Delivery,
    /// The record that the transition made, as text.
    pub record: Bytes,
}

/// Which deliveries, from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryQuery {
    pub status: Option<DeliveryStatus>,
    pub task_id: Option<TaskId>,
    /// Only those below this one.
    pub beyond: Option<DeliveryId>,
    pub limit: usize,
}

impl DeliveryQuery {
    /// Whether a delivery is meant.
    pub(super) fn matches(&self, delivery: &Delivery) -> bool {
        self.status.is_none_or(|status| status == delivery.state.status)
            && self.task_id.is_none_or(|task_id| task_id == delivery.task_id)
            && self.beyond.is_none_or(|beyond| delivery.id < beyond)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    pub deliveries: Vec<Delivery>,
    /// Whether there are more beyond the last.
    pub more: bool,
}
