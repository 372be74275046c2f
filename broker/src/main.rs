//! `intentd-broker`: the broker as a program, for a demonstration on one machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, ValueEnum};
use intentd_broker::{Broker, BrokerError, Gate, Login, Mechanism, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// A Kafka-compatible broker on this machine's loopback interface, which keeps its records in
/// memory. It prints the address for clients and runs until SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// A topic to make; may be given more than once.
    #[arg(long, value_name = "NAME:PARTITIONS", value_parser = topic)]
    topic: Vec<(String, i32)>,
    /// Where to write the address for clients, too; complete as soon as it is there.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Speak TLS, and write the certificate of its authority here. It is a new one each time.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    login: LoginFlags,
    /// End when standard input does, too: whoever holds its other end need not say so.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// The login.
#[derive(Debug, Args)]
struct LoginFlags {
    /// Ask clients to log in, under this name.
    #[arg(long, value_name = "NAME", requires = "sasl_password_file")]
    sasl_username: Option<String>,
    /// The password, in a file; one newline at its end is none of it.
    #[arg(long, value_name = "FILE", requires = "sasl_username")]
    sasl_password_file: Option<PathBuf>,
    /// How clients prove that they know it.
    #[arg(long, value_enum, default_value = "PLAIN", requires = "sasl_username")]
    sasl_mechanism: Named,
}

/// A mechanism under its registered name.
#[derive(Debug, Clone, Copy)]
struct Named(Mechanism);

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Named; 3] = [
            Named(Mechanism::Plain),
            Named(Mechanism::ScramSha256),
            Named(Mechanism::ScramSha512),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(self.0.name().into())
    }
}

/// Why the program ends in failure.
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
    // Before anybody knows the address: whoever reads it may end the program at once.
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
            // What cannot be read has ended, too.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = closed.send(());
        });
    }
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // Without the flag nobody has sent anything.
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

/// Writes a file that nobody ever sees half of.
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
