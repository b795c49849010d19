//! `realm tenant`: programs for tenants, from a scaffold to an answer.

mod scaffold;
mod steps;
mod wasm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use realm::{Contract, Grants, Limits, Message, Program, ProgramLimits, Random, Realm, Request, Store};

use crate::interrupt::{self, Interrupted};
use crate::options::{GrammarOptions, ModelOptions, SamplingOptions};
use crate::output::{note, say};
use crate::run;
use crate::words::Words;

/// Write, build, run and inspect programs for tenants
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Begin a program in a new folder, in Rust
    New {
        /// The folder; its last part is the program's name
        folder: PathBuf,
    },
    /// Build the program in a folder to NAME.wasm
    Build {
        /// The folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    Run(Box<RunArgs>),
    /// Show the exports and imports of a program, and the grants that it needs
    Inspect {
        /// A WebAssembly file, or the name of one that `ci/build-programs` built
        program: String,
    },
}

/// Run a program on one prompt, in a sandbox
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// A WebAssembly file, or the name of one that `ci/build-programs` built
    program: String,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    pub(crate) prompt: Words,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// Further input for the program
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    input: Option<String>,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    grammar: GrammarOptions,
    /// MiB that it may hold, in its memory and behind its handles
    #[arg(long, default_value_t = ProgramLimits::default().memory >> 20)]
    memory: usize,
    /// Seconds that it may compute
    #[arg(long, default_value_t = ProgramLimits::default().cpu_time.as_secs_f64())]
    cpu_time: f64,
    /// Handles that it may hold
    #[arg(long, default_value_t = ProgramLimits::default().handles)]
    handles: usize,
    /// Seconds that the request may take
    #[arg(long)]
    timeout: Option<f64>,
    /// A grant for the program: log, clock, random, random=SEED, store (in memory), store=FOLDER or
    /// http=HOST; may be given several times
    #[arg(long, value_name = "WHAT")]
    grant: Vec<String>,
}

pub(crate) fn tenant(command: &Command) -> Result<()> {
    match command {
        Command::New { folder } => scaffold::write(folder),
        Command::Build { folder } => {
            let file = wasm::build(folder)?;
            let size = std::fs::metadata(&file)?.len() / 1024;
            say!("{} ({size} KiB)", file.display())?;
            say!("try: realm tenant run {} smollm2-135m \"Tell me a story.\"", file.display())?;
            Ok(())
        }
        Command::Run(args) => run_program(args),
        Command::Inspect { program } => inspect(program),
    }
}

/// Loads a program from a file, or by the name of one that `ci/build-programs` built.
pub(crate) fn load(realm: &Realm, name: &str) -> Result<Program> {
    let file = Path::new(name);
    if file.exists() {
        return Ok(realm.load_program(file)?);
    }
    let built = Path::new("target/programs").join(name).with_extension("wasm");
    if !built.exists() {
        bail!(
            "there is no file `{name}`, and no {}: give a WebAssembly file, or build the programs that come with Realm with `ci/build-programs`",
            built.display()
        );
    }
    Ok(realm.load_program(built)?)
}

fn run_program(args: &RunArgs) -> Result<()> {
    let prompt = args.prompt.read()?;
    let (realm, model) = args.model.start(None)?;
    let program = load(&realm, &args.program)?;
    let seconds = |name: &str, seconds: f64| {
        Duration::try_from_secs_f64(seconds).with_context(|| format!("--{name} is {seconds} seconds"))
    };
    let limits = Limits {
        request_timeout: args.timeout.map(|timeout| seconds("timeout", timeout)).transpose()?,
        program: ProgramLimits {
            memory: args.memory << 20,
            cpu_time: seconds("cpu-time", args.cpu_time)?,
            handles: args.handles,
            ..ProgramLimits::default()
        },
        ..Limits::default()
    };
    let tenant = realm.tenant("default", limits)?;
    tenant.set_program(Some(&program));
    tenant.set_grants(grants(&args.grant)?);
    let request = match args.raw {
        true => Request::text(prompt),
        false => Request::chat([Message::user(prompt)]),
    };
    let mut request = args.grammar.apply(args.sampling.apply(request))?;
    if let Some(input) = &args.input {
        request.input = serde_json::from_str(input).context("--input is no JSON")?;
    }
    interrupt::watch();
    let (_, finish) = run::print(tenant.model(&model)?.stream(request)?)?;
    run::report(&finish.ok_or(Interrupted)?);
    Ok(())
}

/// Returns the grants of the flags. Logs go to stderr.
fn grants(flags: &[String]) -> Result<Grants> {
    /// The quota of a store, in bytes, if the user sets none.
    const QUOTA: usize = 64 << 20;
    let mut grants = Grants::none();
    for flag in flags {
        let (what, value) =
            flag.split_once('=').map_or((flag.as_str(), None), |(what, value)| (what, Some(value)));
        grants = match (what, value) {
            ("log", None) => grants.log_to(|tenant, level, message| note!("{tenant} {level:?}: {message}")),
            ("clock", None) => grants.clock(),
            ("random", None) => grants.random(Random::System),
            ("random", Some(seed)) => {
                grants.random(Random::Seed(seed.parse().context("a seed is a number")?))
            }
            ("store", None) => grants.store(Store::in_memory(QUOTA)),
            ("store", Some(folder)) => {
                grants.store(Store::on_disk(folder, QUOTA).map_err(realm::Error::from)?)
            }
            ("http", Some(host)) => grants.http(host),
            _ => bail!(
                "`{flag}` can't be granted: log, clock, random, random=SEED, store, store=FOLDER or http=HOST"
            ),
        };
    }
    Ok(grants)
}

fn inspect(name: &str) -> Result<()> {
    let realm = Realm::builder().device("cpu").build()?;
    let program = load(&realm, name)?;
    let info = program.info();
    let level = match info.contract {
        Contract::Program => "a program: it answers requests",
        Contract::Module => "a core module: it answers requests with plain functions",
        Contract::Policy => "a policy: Realm generates and asks it at each token",
    };
    say!("{level}\n{} KiB", info.bytes / 1024)?;
    for (what, names) in [("exports", &info.exports), ("imports", &info.imports)] {
        say!("{what}")?;
        for name in names.iter() {
            say!("  {name}")?;
        }
    }
    let needs = needs(&info.imports);
    if needs.is_empty() {
        say!("needs no grants")?;
    } else {
        say!("may need grants")?;
        for need in &needs {
            say!("  {need}")?;
        }
    }
    Ok(())
}

/// Returns the grants that a program needs to use its imports.
fn needs(imports: &[String]) -> Vec<&'static str> {
    let table = [
        ("realm:tenant/capabilities@", "log, clock, random, or tools of the application"),
        ("realm:tenant/store@", "store"),
        ("wasi:clocks/", "clock (without it, clocks stand still)"),
        ("wasi:random/", "random (without it, the same numbers come again)"),
        ("wasi:http/", "http=HOST for each host that it asks"),
    ];
    let imported = |prefix: &str| imports.iter().any(|import| import.starts_with(prefix));
    table.into_iter().filter(|(prefix, _)| imported(prefix)).map(|(_, need)| need).collect()
}
