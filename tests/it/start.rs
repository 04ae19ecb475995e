//! What keeps patgate from starting: a sentence that says so, and a documented exit code.

use std::{fs, path::PathBuf};

use crate::support::{TestProxy, certificate, free_address, patgate, setup, text};

/// The proxy's configuration for other ports, with something replaced, in a file of its own.
fn changed(proxy: &TestProxy, from: &str, to: &str) -> PathBuf {
    let own = fs::read_to_string(proxy.config()).unwrap();
    assert!(own.contains(from), "{own}");
    let other = own
        .replace(from, to)
        .replace(&proxy.address.to_string(), &free_address().to_string())
        .replace(&proxy.admin.to_string(), &free_address().to_string());
    let file = proxy.path("other.toml");
    fs::write(&file, other).unwrap();
    file
}

/// Exit code and words of a start that fails.
fn start(config: &PathBuf) -> (Option<i32>, String) {
    let output = patgate().args(["serve", "--config"]).arg(config).output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn a_second_patgate_says_what_is_in_the_way() {
    let proxy = setup().start();
    let (code, said) = start(&proxy.config());
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("is taken by another process"), "{said}");
    assert!(said.contains(&proxy.address.to_string()), "{said}");

    let (code, said) = start(&changed(&proxy, "workers = 2", "workers = 1"));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains(&format!("another patgate (process {})", proxy.pid())), "{said}");
}

#[test]
fn an_audit_folder_that_can_not_be_written_is_named() {
    let proxy = setup().start();
    let blocked = proxy.path("blocked");
    fs::write(&blocked, "a file where a folder should be").unwrap();
    for folder in [blocked.display().to_string(), "/proc/patgate".into()] {
        let (code, said) = start(&changed(&proxy, &proxy.audit.display().to_string(), &folder));
        assert_eq!(code, Some(73), "{said}");
        assert!(said.contains(&folder), "{said}");
    }
}

#[test]
fn a_certificate_that_can_not_serve_is_named() {
    let mut proxy = setup().tls().start();
    proxy.stop();
    let other = proxy.path("elsewhere");
    fs::create_dir(&other).unwrap();
    certificate(&other);
    fs::copy(other.join("server.key"), proxy.path("server.key")).unwrap();
    let (code, said) = start(&proxy.config());
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("server.key is not the key of") && said.contains("patgate.toml:8:"), "{said}");

    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = params.self_signed(&key).unwrap();
    fs::write(proxy.path("server.pem"), expired.pem()).unwrap();
    crate::support::write_private(&proxy.path("server.key"), &key.serialize_pem());
    let (code, said) = start(&proxy.config());
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("expired on 2020-02-01"), "{said}");
}

#[test]
fn a_bad_configuration_binds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patgate.toml");
    fs::write(&file, "public-url = \"ftp://x\"\nunknown = 1\n[[listen]]\naddress = \"nowhere\"\n").unwrap();
    let (code, said) = start(&file);
    assert_eq!(code, Some(78));
    for place in ["patgate.toml:1:", "patgate.toml:2:", "patgate.toml:4:"] {
        assert!(said.contains(place), "{said}");
    }
}
