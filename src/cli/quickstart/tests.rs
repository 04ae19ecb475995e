//! Quickstart as a whole, up to the moment at which patgate would serve.

use std::{fs, process::ExitCode};

use clap::{Args, Command, FromArgMatches};

use super::*;

fn parsed(arguments: &[&str]) -> Result<Arguments, clap::Error> {
    let command = Arguments::augment_args(Command::new("quickstart").no_binary_name(true));
    Arguments::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn free() -> String {
    plan::loopback_port(0, &[]).to_string()
}

#[test]
fn a_sample_folder_is_made_checked_served_and_left_behind() {
    let desk = tempfile::tempdir().unwrap();
    let folder = desk.path().join("q");
    let args = parsed(&["--sample", "--folder", folder.to_str().unwrap(), "--listen", &free()]).unwrap();
    let mut checked = false;
    let mut served = None;
    let code = run(
        &args,
        |config| {
            checked = config.is_file();
            Ok(())
        },
        |config| {
            // While it serves, the sample organisation runs where the configuration says.
            let text: toml::Table = fs::read_to_string(config).unwrap().parse().unwrap();
            let address = text["upstream"]["addresses"]["dev.azure.com"].as_str().unwrap().to_owned();
            served = Some(std::net::TcpStream::connect(address).is_ok());
            ExitCode::from(7)
        },
    );
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(7)));
    assert!(checked);
    assert_eq!(served, Some(true));
    assert!(folder.join("patgate.toml").is_file() && folder.join("sample/pat.sha256").is_file());
}

#[test]
fn a_configuration_that_does_not_hold_together_leaves_nothing_behind() {
    let desk = tempfile::tempdir().unwrap();
    let folder = desk.path().join("q");
    let args = parsed(&["--sample", "--folder", folder.to_str().unwrap(), "--listen", &free()]).unwrap();
    let code = run(&args, |_| Err("a problem".into()), |_| unreachable!("nothing is served"));
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(78)));
    assert!(!folder.exists());
}

#[test]
fn a_folder_that_exists_and_a_port_that_is_taken_are_refused_before_anything_is_done() {
    let desk = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (there, new) = (desk.path().to_str().unwrap(), desk.path().join("q"));
    for (folder, listen, expected) in [
        (there, free(), 73),
        (new.to_str().unwrap(), taken.local_addr().unwrap().to_string(), 69),
        (new.to_str().unwrap(), "127.0.0.1:0".to_owned(), 64),
    ] {
        let args = parsed(&["--sample", "--folder", folder, "--listen", &listen]).unwrap();
        let code = run(&args, |_| Ok(()), |_| ExitCode::SUCCESS);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)), "{folder} {listen}");
    }
    assert!(!new.exists());
}

#[test]
fn arguments_that_make_no_sense_together_are_refused() {
    for (arguments, good) in [
        (&["--sample"][..], true),
        (&["--sample", "--tour"], true),
        (&["--organization", "Contoso", "--organization", "fabrikam"], true),
        (&[], false),
        (&["--tour", "--organization", "contoso"], false),
        (&["--sample", "--organization", "contoso"], false),
        (&["--organization", "https://dev.azure.com/contoso"], false),
        (&["--organization", "contoso", "--pat", "x"], false),
    ] {
        assert_eq!(parsed(arguments).is_ok(), good, "{arguments:?}");
    }
}
