//! Targets in turn, and the ratios between them.
//!
//! On a machine that others use, two servers measured one after the other may differ by what else
//! went on. So the targets take turns, each round in another order, and what is compared is the
//! ratio within a round.

use indicatif::ProgressBar;

use super::answer::Expected;
use super::load::Load;
use super::measured::Objective;
use super::report::{Report, Round, Run, Series};
use super::run::Runner;
use super::search::{Search, Step};
use super::target::Target;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Run in each round.
    pub loads: Vec<Load>,
    /// What is to be held, if anything.
    pub objective: Option<Objective>,
    /// Looks for the highest Poisson rate that holds the objective, to this precision (0.05: 5 %).
    pub search: Option<f64>,
    /// Rounds.
    pub rounds: usize,
    /// Whether each text must get the label that it gets alone from the first target.
    pub check: bool,
    /// Whether the first target is compared with the others.
    pub compare: bool,
}

/// Measures `targets` by `plan`, in turn. What breaks off later is in the report, with all that was
/// measured before.
///
/// # Errors
/// When a target cannot be reached, or gives no labels that answers can be checked by.
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
            // Whoever comes first, comes last in the next round.
            let index = match round % 2 {
                0 => turn,
                _ => targets.len() - 1 - turn,
            };
            let target = &targets[index];
            let turn = Turn {
                runner,
                target,
                plan,
                expected: &expected,
                bar,
                title: format!("{}, round {} of {}", target.name, round + 1, plan.rounds),
            };
            let (round, error) = turn.round();
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
struct Turn<'a> {
    runner: &'a Runner,
    target: &'a Target,
    plan: &'a Plan,
    expected: &'a Expected,
    bar: &'a ProgressBar,
    title: String,
}

impl Turn<'_> {
    /// What was measured, and what broke it off.
    fn round(&self) -> (Round, Option<String>) {
        let mut round = Round::default();
        let error = self.measure(&mut round).err();
        (round, error)
    }

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
        let Turn {
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
        // Twice: a server that has just started is slower.
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
