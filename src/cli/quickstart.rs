//! `patgate quickstart`: from nothing to a running proxy.
//!
//! Whom each token belongs to is asked before anything is written; a folder that exists is never written to.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use crate::{
    cli::{fail, sample_org, tour::Tour},
    sample::{self, Options, Organization, StartError},
};

pub mod configuration;
pub mod folder;
pub mod lines;
pub mod plan;
pub mod token;
pub mod who_is;

use folder::{Folder, FolderError};
use lines::Lines;
use plan::{Member, Plan};
use who_is::{Door, WhoIsError};

const SAMPLE: &str = "contoso";

/// What `quickstart` takes.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("where").required(true).args(["sample", "organization"]),
    after_help = "Examples:\n  \
        patgate quickstart --sample\n  \
        AZURE_DEVOPS_PAT=… patgate quickstart --organization contoso\n  \
        patgate quickstart --organization contoso --organization fabrikam   # asks for one token each"
)]
pub struct Arguments {
    /// Start a sample organization and put patgate before it: no account is needed
    #[arg(long)]
    pub sample: bool,
    /// Show what patgate does with three scenes
    #[arg(long, conflicts_with = "organization")]
    pub tour: bool,
    /// An organization of Azure DevOps; may be repeated. Its token is taken from `AZURE_DEVOPS_PAT_NAME`,
    /// or from `AZURE_DEVOPS_PAT` where it is the only one, or from a prompt
    #[arg(long, value_name = "NAME", value_parser = plan::organization)]
    pub organization: Vec<String>,
    /// The folder to make
    #[arg(long, value_name = "DIR", default_value = "patgate-quickstart")]
    pub folder: PathBuf,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
}

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    WhoIs(#[from] WhoIsError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the sample organization could not start: {0}")]
    Sample(#[from] StartError),
    #[error("the new configuration does not hold together:\n{0}")]
    Check(String),
}

impl Failure {
    /// Sysexits: 64 usage, 69 not available, 73 can't create, 77 permission denied, 78 configuration.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Sample(error) => sample_org::exit_code(error),
            Self::WhoIs(WhoIsError::Rejected { .. } | WhoIsError::NoToken(_)) => 77,
            Self::Unavailable(_) | Self::WhoIs(_) => 69,
            Self::Folder(_) => 73,
            Self::Check(_) => 78,
        }
    }
}

/// What is ready to be served.
struct Ready {
    config: PathBuf,
    lines: Lines,
    listen: Option<SocketAddr>,
    sample: Option<Organization>,
}

/// Sets everything up, prints the lines to paste, and serves.
///
/// `check` reads a configuration and runs its tests, and tells all that is wrong as text; `serve` runs patgate
/// until it is stopped.
pub fn run(
    args: &Arguments,
    check: impl FnOnce(&Path) -> Result<(), String>,
    serve: impl FnOnce(&Path) -> ExitCode,
) -> ExitCode {
    let ready = match prepare(args, check) {
        Ok(ready) => ready,
        Err(failure) => {
            return fail(failure.exit_code(), format_args!("{failure}{}", advice(args, &failure)));
        }
    };
    say(&format!("\n{}{}\n", ready.lines.text(), again(&ready)));
    if args.tour {
        begin_tour(&ready);
    }
    let code = serve(&ready.config);
    drop(ready.sample);
    code
}

/// Plays the tour on a thread of its own, which ends with the process: all that it waits for has a deadline.
fn begin_tour(ready: &Ready) {
    let (Some(listen), Ok(program)) = (ready.listen, std::env::current_exe()) else { return };
    let tour = Tour {
        program,
        config: ready.config.clone(),
        url: ready.lines.url.clone(),
        ca: ready.lines.ca.clone(),
        audit: ready.config.with_file_name("audit"),
        organization: SAMPLE.to_owned(),
    };
    let play = move || tour.play_when_ready(listen, &mut io::stdout());
    if let Err(error) = thread::Builder::new().name("tour".into()).spawn(play) {
        say(&format!("The tour can't start: {error}\n"));
    }
}

/// How to start what is in the folder another time.
fn again(ready: &Ready) -> String {
    let program = &ready.lines.program;
    let serve = format!("{program} serve --config {}", lines::quoted(&ready.config));
    match &ready.sample {
        Some(organization) => format!(
            "To start it again: {program} quickstart --sample --folder {}\n\
             or each alone:     {serve}\n                   \
                                {program} sample-org --folder {}\n",
            ready.config.parent().map_or_else(String::new, lines::quoted),
            lines::quoted(organization.folder()),
        ),
        None => format!("To start it again: {serve}\n"),
    }
}

fn prepare(args: &Arguments, check: impl FnOnce(&Path) -> Result<(), String>) -> Result<Ready, Failure> {
    if args.sample
        && args.folder.join("sample/pat.sha256").is_file()
        && args.folder.join("patgate.toml").is_file()
    {
        return restart(args);
    }
    if args.folder.exists() {
        return Err(FolderError::Exists(args.folder.clone()).into());
    }
    if args.listen.port() == 0 {
        return Err(Failure::Usage("--listen needs a port: clients are told it".into()));
    }
    plan::is_free(args.listen)
        .map_err(|error| Failure::Unavailable(format!("{error}; choose another address with --listen")))?;
    if args.sample { new_sample(args, check) } else { new_real(args, check) }
}

fn new_real(args: &Arguments, check: impl FnOnce(&Path) -> Result<(), String>) -> Result<Ready, Failure> {
    let door = Door::real()?;
    let mut names = args.organization.clone();
    names.sort_unstable();
    names.dedup();
    let only = names.len() == 1;
    let mut members = Vec::new();
    for name in names {
        let pat = token::token(&name, only).map_err(Failure::Usage)?;
        members.push(introduce(&door, name, pat)?);
    }
    let folder = Folder::create(&args.folder)?;
    let plan = Plan {
        listen: args.listen,
        admin: plan::loopback_port(9_443, &[args.listen.port()]),
        members,
        sample: None,
    };
    fill(folder, &plan, check, None)
}

fn new_sample(args: &Arguments, check: impl FnOnce(&Path) -> Result<(), String>) -> Result<Ready, Failure> {
    let folder = Folder::create(&args.folder)?;
    let planned = plan_sample(args, &folder);
    match planned {
        Ok((plan, organization)) => fill(folder, &plan, check, Some(organization)),
        Err(failure) => {
            folder.remove();
            Err(failure)
        }
    }
}

fn plan_sample(args: &Arguments, folder: &Folder) -> Result<(Plan, Organization), Failure> {
    let pat = sample_org::made_up_token()?;
    let start = |address| {
        Organization::start(Options {
            folder: folder.sample(),
            organizations: vec![SAMPLE.to_owned()],
            pat: Some(pat.clone()),
            address,
        })
    };
    let organization = match start(sample_org::ADDRESS) {
        Err(StartError::Address(..)) => start((sample_org::ADDRESS.ip(), 0).into()),
        started => started,
    }?;
    let door = Door::at(organization.address(), organization.ca())?;
    let member = introduce(&door, SAMPLE.to_owned(), pat.as_str().into())?;
    let plan = Plan {
        listen: args.listen,
        admin: plan::loopback_port(9_443, &[args.listen.port()]),
        members: vec![member],
        sample: Some(organization.address()),
    };
    Ok((plan, organization))
}

/// Asks whom a token belongs to, and says so.
fn introduce(door: &Door, name: String, pat: secrecy::SecretString) -> Result<Member, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    let (owner, repository) = runtime.block_on(async {
        let owner = who_is::who_is(door, &name, &pat).await?;
        Ok::<_, WhoIsError>((owner, who_is::a_repository(door, &name, &pat).await))
    })?;
    say(&format!("The token for {name} belongs to {owner}.\n"));
    Ok(Member { name, pat, owner, repository })
}

/// Fills a new folder and checks it. What does not hold together is taken back.
fn fill(
    folder: Folder,
    plan: &Plan,
    check: impl FnOnce(&Path) -> Result<(), String>,
    sample: Option<Organization>,
) -> Result<Ready, Failure> {
    let filled = folder
        .fill(plan)
        .map_err(Failure::from)
        .and_then(|()| check(&folder.config()).map_err(Failure::Check));
    if let Err(failure) = filled {
        drop(sample);
        folder.remove();
        return Err(failure);
    }
    say(&format!(
        "Wrote {}: the configuration, a sealed vault, a certificate. It was checked.\n",
        folder.path().display()
    ));
    let member = plan.members.first();
    let organization = member.map_or_else(String::new, |member| member.name.clone());
    let repository = member.and_then(|member| member.repository.clone());
    let lines = lines_for(&folder, plan.public_url(), organization, repository, sample.is_some());
    Ok(Ready { config: folder.config(), lines, listen: Some(plan.listen), sample })
}

/// Starts the sample organisation of a folder that has one.
fn restart(args: &Arguments) -> Result<Ready, Failure> {
    let folder = Folder::open(&args.folder)?;
    let config = crate::config::file::read(&folder.config())
        .map_err(|problems| Failure::Check(problems.to_string()))?;
    let organization = Organization::start(Options {
        folder: folder.sample(),
        organizations: vec![SAMPLE.to_owned()],
        pat: None,
        address: sample::Folder::last_address(&folder.sample()).unwrap_or(sample_org::ADDRESS),
    })?;
    say(&format!("Starting {} again, as its configuration says.\n", folder.path().display()));
    let repository = Some(format!("/{SAMPLE}/web/_git/web"));
    let lines = lines_for(&folder, config.public_url.to_string(), SAMPLE.to_owned(), repository, true);
    let listen = config.listeners.first().map(|listen| listen.address);
    Ok(Ready { config: folder.config(), lines, listen, sample: Some(organization) })
}

fn lines_for(
    folder: &Folder,
    url: String,
    organization: String,
    repository: Option<String>,
    sample: bool,
) -> Lines {
    let refused = if sample {
        format!("GET /{organization}/payroll/_apis/git/repositories")
    } else {
        format!("DELETE /{organization}/_apis/projects/web")
    };
    let (ca, config) = (folder.ca(), folder.config());
    Lines { program: lines::program(), url, ca, config, organization, repository, refused }
}

/// What to do about a failure, where that is not plain.
fn advice(args: &Arguments, failure: &Failure) -> String {
    match failure {
        Failure::Folder(FolderError::Exists(folder)) => {
            let config = folder.join("patgate.toml");
            let serve = if config.is_file() {
                format!(
                    "\n  to serve what is in it: {} serve --config {}",
                    lines::program(),
                    lines::quoted(&config)
                )
            } else {
                String::new()
            };
            format!("{serve}\n  to make another: add --folder with a name that is free")
        }
        Failure::WhoIs(_) => format!("\n  nothing was written; {} does not exist", args.folder.display()),
        _ => String::new(),
    }
}

fn say(words: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(words.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests;
