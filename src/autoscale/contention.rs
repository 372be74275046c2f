//! Contention: how much longer batches take than their own work, because others use the same cores or the process's CPU
//! time is limited.
//!
//! Measured rather than inferred: the kernel tells how long a thread was ready to run and did not (`schedstat`). That
//! covers neighbours and a cgroup that is throttled alike.

/// Weight of the newest interval.
const NEWEST: f64 = 0.2;

/// Contention: the factor by which batches take longer than the engine's effort and the host's share explain, because
/// others use the same cores or the process's CPU time is limited.
#[derive(Debug, Clone, Copy)]
pub struct Contention {
    factor: f64,
    /// Cores that the engine's threads occupy while a batch runs.
    threads: f64,
}

/// How an engine got on in an interval of `elapsed` seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnginePace {
    /// Seconds that its threads ran.
    pub ran: f64,
    /// The same with the time that they waited for a core.
    pub all: f64,
    /// The same of all its threads together.
    pub threads: f64,
    /// Seconds in which a batch was running.
    pub batches: f64,
    /// Share of the cores that the host took.
    pub host_share: f64,
    /// Seconds of the interval.
    pub elapsed: f64,
}

/// Share of an interval that the engine has to run, for its pace to count fully, and to count at all.
const ENGINE_SHARE: f64 = 0.05;
const ENGINE_SHARE_MIN: f64 = 0.005;

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

    /// Learns from an interval.
    pub fn learn(&mut self, pace: &EnginePace) {
        if pace.ran < ENGINE_SHARE_MIN * pace.elapsed {
            // Other processes may have ended.
            self.factor += DECAY * (1.0 - self.factor);
            return;
        }
        let weight = NEWEST * (pace.ran / (ENGINE_SHARE * pace.elapsed)).min(1.0);
        let found = pace.all / pace.ran * (1.0 - pace.host_share.clamp(0.0, 0.95));
        self.factor += weight * (found.clamp(1.0, CONTENTION_MAX) - self.factor);
        let threads = (pace.threads / pace.batches.max(f64::MIN_POSITIVE)).clamp(1.0, 1024.0);
        self.threads += weight * (threads - self.threads);
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

    /// One thread that ran for `ran` of a second, and needed `all` for it.
    fn pace(ran: f64, all: f64, host_share: f64) -> EnginePace {
        EnginePace {
            ran,
            all,
            threads: all,
            batches: all,
            host_share,
            elapsed: 1.0,
        }
    }

    #[test]
    fn delay_beyond_the_host_share_is_contention() {
        let mut contention = Contention::new();
        for _ in 0..50 {
            contention.learn(&pace(0.5, 0.7, 0.3));
        }
        assert!((contention.factor(2.0) - 1.0).abs() < 1e-6);
        for _ in 0..50 {
            contention.learn(&pace(0.4, 0.8, 0.0));
        }
        assert!((contention.factor(2.0) - 2.0).abs() < 1e-3);
        contention.learn(&pace(0.001, 1.0, 0.0));
        assert!(
            (contention.factor(2.0) - 2.0).abs() < 0.03,
            "too little to observe"
        );
        for _ in 0..30 {
            contention.learn(&pace(0.1, 0.1, 0.0));
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
            contention.learn(&pace(0.02, 0.02, 0.05));
        }
        let idle = contention.factor(0.2);
        assert!((4.9..5.1).contains(&idle), "{idle}");
        for _ in 0..50 {
            // The host takes a quarter of what there is.
            contention.learn(&pace(0.15, 1.0, 0.25));
        }
        let busy = contention.factor(0.2);
        assert!((4.9..5.2).contains(&busy), "{busy}");
    }
}
