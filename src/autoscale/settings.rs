//! Settings of the hints.

/// How far ahead the trend is extrapolated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trend {
    /// Not at all.
    Off,
    /// By the start time of a replica.
    Startup,
    /// By this many seconds.
    Seconds(f64),
}

/// Settings of the hints.
#[derive(Debug, Clone, PartialEq)]
pub struct HintSettings {
    /// Seconds within which 99 of 100 requests should be answered, if there is an objective.
    pub objective: Option<f64>,
    /// Target share of the capacity.
    pub utilization: f64,
    /// Seconds within which a backlog should be drained.
    pub drain: f64,
    /// How far ahead the trend is extrapolated.
    pub trend: Trend,
    /// The name of this replica.
    pub pod: String,
    /// The name of the model.
    pub model: String,
}
