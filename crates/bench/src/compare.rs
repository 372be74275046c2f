//! Measuring several targets in alternation, to compare them.
//!
//! On a shared machine, two servers that are measured one after the other may differ because of other
//! load. The targets therefore take turns, in alternating order, and only results of the same round are
//! compared.

use indicatif::ProgressBar;

use super::answer::Expected;
use super::load::Load;
use super::measured::Objective;
use super::report::{Report, Round, Run, Series};
use super::run::Runner;
use super::search::{Search, Step};
use super::target::Target;

/// The measurements to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The loads of each round.
    pub loads: Vec<Load>,
    /// The objective, if any.
    pub objective: Option<Objective>,
    /// Searches the highest Poisson rate that holds the objective, to this precision (0.05 is 5 %).
    pub search: Option<f64>,
    /// The number of rounds.
    pub rounds: usize,
    /// Whether each text must get the label that the first target gives it without load.
    pub check: bool,
    /// Whether the first target is compared with the others.
    pub compare: bool,
}

/// Measures `targets` in turn, as `plan` says. A later error is part of the report, with all results up to
/// it.
///
/// # Errors
/// When a target cannot be reached, or gives no labels to check answers against.
pub fn measure(
    runner: &Runner,
    targets: &[Target],
    plan: &Plan,
    bar: &ProgressBar,
) -> Result<Report, String> {
    targets.iter().try_for_each(|target| runner.reach(target))?;
    let expected = match (plan.check, targets.first()) {
        (true, Some(first)) => {
            bar.set_message(format!("{}: labels", first.name));
            runner.labels(first, bar)?
        }
        _ => Expected::anything(),
    };
    let series = targets
        .iter()
        .map(|target| Series {
            name: target.name.clone(),
            url: target.url.clone(),
            rounds: Vec::new(),
        })
        .collect();
    let mut report = Report {
        objective: plan.objective,
        options: runner.options,
        compared: plan.compare,
        series,
        broken_off: None,
    };
    'rounds: for round in 0..plan.rounds {
        for turn in 0..targets.len() {
            // The order alternates from round to round.
            let index = match round % 2 {
                0 => turn,
                _ => targets.len() - 1 - turn,
            };
            let target = &targets[index];
            let target_round = TargetRound {
                runner,
                target,
                plan,
                expected: &expected,
                bar,
                title: format!("{}, round {} of {}", target.name, round + 1, plan.rounds),
            };
            let mut round = Round::default();
            let error = target_round.measure(&mut round).err();
            report.series[index].rounds.push(round);
            if error.is_some() {
                report.broken_off = error;
                break 'rounds;
            }
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// One target in one round.
struct TargetRound<'a> {
    runner: &'a Runner,
    target: &'a Target,
    plan: &'a Plan,
    expected: &'a Expected,
    bar: &'a ProgressBar,
    title: String,
}

impl TargetRound<'_> {
    /// Adds all results to `round`, up to the first error.
    fn measure(&self, round: &mut Round) -> Result<(), String> {
        for load in &self.plan.loads {
            round.runs.push(self.run(load)?);
        }
        if let (Some(objective), Some(precision)) = (self.plan.objective, self.plan.search) {
            round.highest = Some(self.search(objective, precision, &mut round.runs)?);
        }
        Ok(())
    }

    fn run(&self, load: &Load) -> Result<Run, String> {
        self.bar.set_message(format!("{}: {load}", self.title));
        let Self {
            runner,
            target,
            expected,
            bar,
            ..
        } = self;
        let measured = runner.run(target, load, expected, bar)?;
        Ok(Run {
            load: load.to_string(),
            holds: self
                .plan
                .objective
                .map(|objective| measured.holds(objective)),
            measured,
        })
    }

    fn search(
        &self,
        objective: Objective,
        precision: f64,
        runs: &mut Vec<Run>,
    ) -> Result<f64, String> {
        self.bar
            .set_message(format!("{}: how much it can do", self.title));
        // Twice: a server that has just started is slower the first time.
        let most = self.runner.options.duration;
        self.runner.saturate(self.target, most / 4)?;
        let saturated = self.runner.saturate(self.target, most / 2)?;
        let mut search = Search::new(saturated, precision);
        loop {
            match search.step() {
                Step::Done(rate) => return Ok(rate.unwrap_or(0.0)),
                Step::Try(rate) => {
                    let run = self.run(&Load::Poisson(rate))?;
                    search.tell(run.measured.holds(objective));
                    runs.push(run);
                }
            }
        }
    }
}
