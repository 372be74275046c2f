//! Contention: how much longer batches take than their own work, because others use the same cores or the process's CPU
//! time is limited.
//!
//! Measured rather than inferred. For a thread that computes alone, it is the elapsed time of batches by their CPU time. For
//! several, which also wait for each other, the kernel tells how long they were ready to run and did not (`schedstat`). That
//! covers neighbours and a cgroup that is throttled alike. It counts only while the engine is busy: a short batch now and
//! then waits for a moment whenever it begins, which says nothing about how much can be done.

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// The factor by which batches take longer than the engine's effort and the host's share explain.
#[derive(Debug, Clone, Copy)]
pub struct Contention {
    factor: f64,
    /// See [`EnginePace::threads`].
    threads: f64,
}

/// How an engine got on in an interval of `elapsed` seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnginePace {
    /// Seconds that its threads ran.
    pub ran: f64,
    /// The same with the time that they waited for a core.
    pub all: f64,
    /// Cores that its threads occupy while a batch runs.
    pub threads: f64,
    /// The number of its threads.
    pub threads_max: f64,
    /// Share of the cores that the host took.
    pub host_share: f64,
    /// Seconds of the interval.
    pub elapsed: f64,
    /// Cores that may be used.
    pub cores: f64,
}

/// Whether an engine that ran for `ran` of `elapsed` seconds was busy enough for its pace to say something, where `cores`
/// may be used.
pub fn is_busy(ran: f64, elapsed: f64, cores: f64) -> bool {
    ran >= ENGINE_SHARE_MIN * elapsed * cores.min(1.0)
}

/// Share of an interval, or of the CPU time in it that there is, that the engine has to run.
const ENGINE_SHARE_MIN: f64 = 0.2;

const CONTENTION_MAX: f64 = 50.0;

/// Share by which contention decays in an interval without observation.
const DECAY: f64 = 0.02;

impl Default for Contention {
    fn default() -> Self {
        Self::new()
    }
}

impl Contention {
    /// No contention.
    pub fn new() -> Self {
        Self {
            factor: 1.0,
            threads: 1.0,
        }
    }

    /// What remains for another model on the same machine.
    pub fn of_machine(self) -> Self {
        Self {
            threads: 1.0,
            ..self
        }
    }

    /// Learns from an interval.
    pub fn learn(&mut self, pace: &EnginePace) {
        if !is_busy(pace.ran, pace.elapsed, pace.cores) {
            // Other processes may have ended.
            self.factor += DECAY * (1.0 - self.factor);
            return;
        }
        let found = pace.all / pace.ran * (1.0 - pace.host_share.clamp(0.0, 0.95));
        self.factor += NEWEST * (found.clamp(1.0, CONTENTION_MAX) - self.factor);
        // After a batch its threads look for the next one for a moment, which is no part of it.
        let threads = pace.threads.min(pace.threads_max).max(1.0);
        self.threads += NEWEST * (threads - self.threads);
    }

    /// The factor where `cores` may be used; 1 without contention. If they are fewer than the engine's threads, batches
    /// take longer once the CPU time is used up, even if they have not yet.
    pub fn factor(&self, cores: f64) -> f64 {
        self.factor.max(self.threads / cores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thread that ran for `ran` of a second, and waited for a core for the rest of `all`.
    fn pace(ran: f64, all: f64, host_share: f64, cores: f64) -> EnginePace {
        EnginePace {
            ran,
            all,
            threads: 1.0,
            threads_max: 1.0,
            host_share,
            elapsed: 1.0,
            cores,
        }
    }

    #[test]
    fn delay_beyond_the_host_share_is_contention() {
        let mut contention = Contention::new();
        for _ in 0..50 {
            contention.learn(&pace(0.5, 0.7, 0.3, 2.0));
        }
        assert!((contention.factor(2.0) - 1.0).abs() < 1e-6);
        for _ in 0..50 {
            contention.learn(&pace(0.4, 0.8, 0.0, 2.0));
        }
        assert!((contention.factor(2.0) - 2.0).abs() < 1e-3);
        contention.learn(&pace(0.01, 1.0, 0.0, 2.0));
        assert!(
            (contention.factor(2.0) - 2.0).abs() < 0.03,
            "too little to observe"
        );
        for _ in 0..30 {
            contention.learn(&pace(0.3, 0.3, 0.0, 2.0));
        }
        let factor = contention.factor(2.0);
        assert!(factor < 1.01, "known to be over within a minute: {factor}");
    }

    /// A limit of a fifth of a core shows before it is used up, and counts once when it is.
    #[test]
    fn a_cpu_limit_is_contention() {
        let mut contention = Contention::new();
        assert_eq!(contention.factor(0.2), 5.0);
        for _ in 0..50 {
            contention.learn(&pace(0.02, 0.02, 0.05, 0.2));
        }
        assert_eq!(contention.factor(0.2), 5.0);
        for _ in 0..50 {
            // The host takes a quarter of what there is.
            contention.learn(&pace(0.15, 1.0, 0.25, 0.2));
        }
        let busy = contention.factor(0.2);
        assert!((4.9..5.2).contains(&busy), "{busy}");
    }
}
