//! `patgate sample-org`: the sample organisation alone.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tokio::signal::unix::{SignalKind, signal};

use super::fail;
use crate::sample::{Folder, Options, Organization, StartError};

/// Where it listens if nothing else is said, and nothing is remembered.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_441);

/// What `sample-org` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  patgate sample-org\n  patgate sample-org --folder patgate-quickstart/sample"
)]
pub struct Arguments {
    /// Where it keeps its repositories, certificate and token's digest
    #[arg(long, value_name = "DIR", default_value = "patgate-sample")]
    pub folder: PathBuf,
    /// Where it listens, on loopback [default: where this folder's last listened, else 127.0.0.1:9441]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub address: Option<SocketAddr>,
    /// An organization it answers for; may be repeated
    #[arg(long, value_name = "NAME", default_value = "contoso")]
    pub organization: Vec<String>,
}

/// Runs it until Ctrl-C or `SIGTERM`.
#[must_use]
pub fn run(args: &Arguments) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit_code(&error), error),
    }
}

/// Sysexits: 64 for an argument, 69 for what is not available, 73 for files that can't be made.
pub(super) fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::NotLoopback(_) => 64,
        StartError::Address(..) | StartError::Git(_) => 69,
        StartError::Io(..) | StartError::Certificate(_) | StartError::NoToken(_) => 73,
    }
}

fn serve(args: &Arguments) -> Result<(), StartError> {
    let pat = token(&args.folder)?;
    let organization = Organization::start(Options {
        folder: args.folder.clone(),
        organizations: args.organization.clone(),
        pat,
        address: args.address.or_else(|| Folder::last_address(&args.folder)).unwrap_or(ADDRESS),
    })?;
    let words =
        instructions(organization.address(), organization.ca(), organization.folder(), &args.organization);
    let _ = io::stdout().write_all(words.as_bytes());
    let ended = wait_for_signal();
    organization.stop();
    ended.map_err(|error| StartError::Io(args.folder.clone(), error))
}

/// A token for a folder that knows none yet, kept in a file that a vault of type `file` reads.
fn token(folder: &Path) -> Result<Option<String>, StartError> {
    if folder.join("pat.sha256").exists() {
        return Ok(None);
    }
    let pat = made_up_token()?;
    let file = folder.join("pat");
    let written = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let _ = fs::remove_file(&file);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(&file)?.write_all(pat.as_bytes())
    };
    written().map_err(|error| StartError::Io(file.clone(), error))?;
    Ok(Some(pat))
}

/// 52 characters of base32, as older tokens of Azure DevOps have. It opens nothing but a sample organisation.
///
/// # Errors
/// A system without random bytes.
pub(super) fn made_up_token() -> Result<String, StartError> {
    let mut bytes = [0; 52];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StartError::Certificate("the system gives no random bytes".into()))?;
    let base32 = "abcdefghijklmnopqrstuvwxyz234567";
    Ok(bytes.iter().filter_map(|byte| base32.chars().nth(usize::from(byte % 32))).collect())
}

fn instructions(address: SocketAddr, ca: &Path, folder: &Path, organizations: &[String]) -> String {
    let (ca, pat) = (ca.display(), folder.join("pat"));
    let mut words = format!(
        "The sample organization listens on {address}, for {}. Its files are in {}.\n\
         Put patgate before it with these lines in its configuration:\n\n\
         [upstream]\n\
         addresses = {{ \"dev.azure.com\" = \"{address}\" }}\n\
         ca        = \"{ca}\"\n",
        organizations.join(", "),
        folder.display()
    );
    if pat.exists() {
        let names: Vec<_> = organizations.iter().map(|name| format!("\"{name}\"")).collect();
        let _ = write!(
            words,
            "\n[vault.sample]\n\
             type = \"file\"\n\n\
             [credential.sample]\n\
             vault         = \"sample\"\n\
             secret        = \"{}\"\n\
             organizations = [{}]\n",
            pat.display(),
            names.join(", ")
        );
    } else {
        words += "\nIt knows its token by a digest; the token itself is in the vault it was sealed into.\n";
    }
    words + "\nCtrl-C stops it.\n"
}

fn wait_for_signal() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_gets_a_token_that_only_its_owner_reads_and_keeps_it() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("sample");
        let pat = token(&folder).unwrap().unwrap();
        assert_eq!(pat.len(), 52);
        assert_eq!(fs::metadata(folder.join("pat")).unwrap().permissions().mode() & 0o777, 0o600);
        let options = Options {
            folder: folder.clone(),
            organizations: vec!["contoso".into()],
            pat: Some(pat.clone()),
            address: ([127, 0, 0, 1], 0).into(),
        };
        let organization = Organization::start(options).unwrap();
        let words = instructions(organization.address(), organization.ca(), &folder, &["contoso".into()]);
        assert!(words.contains("[credential.sample]") && !words.contains(&pat), "{words}");
        assert!(token(&folder).unwrap().is_none());
    }
}
