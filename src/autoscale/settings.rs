//! What the hints are to be.

/// How far ahead the trend is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trend {
    /// Not at all.
    Off,
    /// By the time that a replica takes to start.
    Startup,
    /// By so many seconds.
    Seconds(f64),
}

/// What the hints are to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Seconds within which 99 of 100 requests are to be answered, if there is an objective.
    pub objective: Option<f64>,
    /// Part of the capacity that is to be used.
    pub utilization: f64,
    /// Seconds within which a backlog is to be gone.
    pub drain: f64,
    /// The trend.
    pub trend: Trend,
    /// The name of this replica.
    pub pod: String,
    /// The name of the model.
    pub model: String,
}
