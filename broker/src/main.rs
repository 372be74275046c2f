//! `intentd-broker`: the broker as a program, for a demonstration on one machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use intentd_broker::{Broker, BrokerError, Gate, Login, Mechanism, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// A Kafka-compatible broker on this machine's loopback interface that keeps its records in
/// memory. It prints the address for clients and runs until SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// A topic to create; may be given more than once.
    #[arg(long, value_name = "NAME:PARTITIONS", value_parser = topic)]
    topic: Vec<(String, i32)>,
    /// Also write the address for clients to this file, atomically.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Use TLS, and write the certificate of its authority to this file. Each start makes a new one.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    login: LoginFlags,
    /// Also end when standard input closes, so that the broker ends with its parent process.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// The flags of the login.
#[derive(Debug, Args)]
struct LoginFlags {
    /// Require a login with this name.
    #[arg(long, value_name = "NAME", requires = "sasl_password_file")]
    sasl_username: Option<String>,
    /// The file with the password; one newline at its end is not part of it.
    #[arg(long, value_name = "FILE", requires = "sasl_username")]
    sasl_password_file: Option<PathBuf>,
    /// The SASL mechanism.
    #[arg(long, value_enum, default_value = "PLAIN", requires = "sasl_username")]
    sasl_mechanism: MechanismName,
}

/// A mechanism under its registered name.
#[derive(Debug, Clone, Copy)]
struct MechanismName(Mechanism);

impl ValueEnum for MechanismName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [MechanismName; 3] = [
            MechanismName(Mechanism::Plain),
            MechanismName(Mechanism::ScramSha256),
            MechanismName(Mechanism::ScramSha512),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(self.0.name().into())
    }
}

/// The program failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    System(#[from] io::Error),
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("intentd-broker: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    // Before the address is published: its reader may end the program at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let settings = Settings {
        topics: flags.topic,
        gate: gate(flags.login, flags.ca_file.is_some())?,
        ..Settings::default()
    };
    let broker = Broker::start(&settings)?;
    if let (Some(path), Some(pem)) = (&flags.ca_file, broker.ca_pem()) {
        write(path, pem)?;
    }
    let address = broker.bootstrap();
    if let Some(path) = &flags.port_file {
        write(path, &address)?;
    }
    writeln!(io::stdout(), "{address}")?;

    let (closed, stdin_closed) = tokio::sync::oneshot::channel();
    if flags.until_stdin_closes {
        std::thread::spawn(move || {
            // An input that cannot be read counts as closed.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = closed.send(());
        });
    }
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // Without the flag, nothing is ever sent.
            Ok(()) = stdin_closed => {}
        }
    });
    Ok(())
}

fn gate(login: LoginFlags, tls: bool) -> Result<Option<Gate>, Failure> {
    let (Some(username), Some(path)) = (login.sasl_username, login.sasl_password_file) else {
        return Ok(tls.then_some(Gate::Ssl));
    };
    let mut password = match std::fs::read_to_string(&path) {
        Ok(password) => password,
        Err(error) => return Err(Failure::File { path, error }),
    };
    if password.ends_with('\n') {
        password.pop();
    }
    let login = Login {
        mechanism: login.sasl_mechanism.0,
        username,
        password,
    };
    Ok(Some(if tls {
        Gate::SaslSsl(login)
    } else {
        Gate::SaslPlaintext(login)
    }))
}

/// Writes a file atomically, so that no reader sees a part of it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path));
    written.map_err(|error| Failure::File {
        path: path.to_owned(),
        error,
    })
}

fn topic(text: &str) -> Result<(String, i32), String> {
    let (name, partitions) = text.split_once(':').ok_or("no number of partitions")?;
    let partitions = partitions.parse().map_err(|error| format!("{error}"))?;
    Ok((name.to_owned(), partitions))
}
