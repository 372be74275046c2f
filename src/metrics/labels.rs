//! The labels of `intentd_requests_total`.

/// The surface of a request; the `surface` label of `intentd_requests_total`.
///
/// Each surface defines its own, and [`Metrics::declare`](super::Metrics::declare) creates its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurfaceLabel(&'static str);

impl SurfaceLabel {
    /// Records of Kafka.
    pub const KAFKA: Self = Self::new("kafka");

    /// The surface with this label.
    pub const fn new(label: &'static str) -> Self {
        Self(label)
    }

    /// The label's value.
    pub const fn label(self) -> &'static str {
        self.0
    }
}

/// The outcome of a request; the `outcome` label of `intentd_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a prediction.
    Answered,
    /// With an error that says why.
    Refused,
    /// The client left before the answer.
    Abandoned,
}

impl Outcome {
    pub(super) const ALL: [Self; 3] = [Self::Answered, Self::Refused, Self::Abandoned];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}
