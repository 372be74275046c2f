//! Mistakes in settings. They are collected, so that one message reports all of them.

/// Everything that is wrong with the settings, one line for each mistake.
///
/// A line names the flag, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The values of two flags that need each other; one without the other is a mistake.
pub(super) fn both<T, U>(
    flags: &str,
    pair: (Option<T>, Option<U>),
    mistakes: &mut Vec<String>,
) -> Option<(T, U)> {
    match pair {
        (Some(one), Some(other)) => Some((one, other)),
        (None, None) => None,
        _ => {
            mistakes.push(format!("{flags}: expected both or neither, found one"));
            None
        }
    }
}
