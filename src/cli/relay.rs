//! `intentd relay`: the life of its process.

use super::Failure;
#[cfg(feature = "kafka")]
use super::{log, process::stop_signal};
use crate::config::{ConfigError, RelayArgs};

/// Delivers until SIGTERM or SIGINT.
pub(super) fn run(args: RelayArgs, mut mistakes: Vec<String>) -> Result<(), Failure> {
    #[cfg(feature = "kafka")]
    let (filter, format) = (args.log.clone(), args.log_format);
    let settings = match (args.settings(), mistakes.is_empty()) {
        (Ok(settings), true) => settings,
        (checked, _) => {
            mistakes.extend(checked.err().into_iter().flat_map(|ConfigError(more)| more));
            return Err(Failure::usage(ConfigError(mistakes)));
        }
    };
    #[cfg(feature = "kafka")]
    {
        use crate::events::relay::{self, RelayError};
        log::start(&filter, format);
        // One thread: what there is to do is wait for answers.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(async {
            let stop = stop_signal()?;
            let relay = relay::start(&settings).map_err(|error| match error {
                RelayError::Client(error) => Failure::usage(error),
                error => error.into(),
            })?;
            if let Some(address) = relay.admin_address {
                tracing::info!(%address, "serving metrics and health");
            }
            relay.until(stop).await.map_err(Failure::from)
        });
        // What is still undelivered stays in the topic.
        runtime.shutdown_background();
        result
    }
    #[cfg(not(feature = "kafka"))]
    {
        // The check of the flags has said so already.
        drop(settings);
        Err(Failure::usage(crate::error::NO_KAFKA))
    }
}
