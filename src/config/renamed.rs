//! Old names of flags. They work everywhere the new names do: as flags, variables and keys of a file.
//!
//! A flag declares its old name as a clap alias, which help does not show. clap allows one variable for each
//! flag, so old variables are listed here.

use clap::{Arg, Command, Id};

/// Variables and their old names.
const VARIABLES: [(&str, &str); 2] = [
    ("INTENTD_MAX_BATCH_TEXTS", "INTENTD_MAX_BATCH_REQUESTS"),
    (
        "INTENTD_PROFILE_MAX_BATCH_TEXTS",
        "INTENTD_PROFILE_MAX_BATCH_REQUESTS",
    ),
];

/// Whether `name`, without dashes, is the flag's name or its old one.
pub(super) fn is_named(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name)
        || arg
            .get_all_aliases()
            .is_some_and(|aliases| aliases.contains(&name))
}

/// Lets flags read old variables where the new ones are not set.
pub(super) fn with_old_variables(command: Command) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "clap reads one variable for each flag, so this decides which"
    )]
    let is_set = |name: &str| std::env::var_os(name).is_some();
    with_variables(command, &is_set)
}

fn with_variables(mut command: Command, is_set: &dyn Fn(&str) -> bool) -> Command {
    let old_variable = |arg: &Arg| -> Option<(Id, &'static str)> {
        let new = arg.get_env()?.to_str()?;
        let (_, old) = VARIABLES.iter().find(|(name, _)| *name == new)?;
        (!is_set(new) && is_set(old)).then(|| (arg.get_id().clone(), *old))
    };
    let old: Vec<_> = command.get_arguments().filter_map(old_variable).collect();
    for (id, variable) in old {
        command = command.mut_arg(id, |arg| arg.env(variable));
    }
    command.mut_subcommands(|subcommand| with_variables(subcommand, is_set))
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::config::ServeArgs;

    fn variable(set: &[&str]) -> String {
        let serve = ServeArgs::augment_args(Command::new("serve"));
        let command = Command::new("intentd").subcommand(serve);
        let command = with_variables(command, &|name| set.contains(&name));
        let serve = command.find_subcommand("serve").unwrap();
        let flag = serve
            .get_arguments()
            .find(|arg| is_named(arg, "max-batch-requests"))
            .unwrap();
        flag.get_env().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn an_old_variable_is_read_unless_the_new_one_is_set() {
        let (new, old) = VARIABLES[0];
        assert_eq!(variable(&[]), new);
        assert_eq!(variable(&[old]), old);
        assert_eq!(variable(&[old, new]), new);
    }
}
