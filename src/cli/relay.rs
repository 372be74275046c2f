//! `intentd relay`: the process of the relay.

use super::failure::{Failure, without_mistakes};
#[cfg(feature = "kafka")]
use super::{log, shutdown::stop_signal};
use crate::config::RelayArgs;

/// Delivers records until SIGTERM or SIGINT.
pub(super) fn run(args: RelayArgs, mistakes: Vec<String>) -> Result<(), Failure> {
    #[cfg(feature = "kafka")]
    let (filter, format) = (args.log.clone(), args.log_format);
    let settings = without_mistakes(args.settings(), mistakes)?;
    #[cfg(feature = "kafka")]
    {
        use crate::kafka::relay::{self, RelayError};
        log::start(&filter, format);
        // One thread is enough: the relay waits for answers most of the time.
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
        // Undelivered records stay in the topic.
        runtime.shutdown_background();
        result
    }
    #[cfg(not(feature = "kafka"))]
    {
        // The check of the flags has already failed with this message.
        drop(settings);
        Err(Failure::usage(intentd_base::NO_KAFKA))
    }
}
