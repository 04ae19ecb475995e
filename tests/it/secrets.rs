//! Looks for secrets in what patgate leaves behind, in every encoding that could carry one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};

/// The forms in which a secret could stand somewhere.
pub fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
        STANDARD.encode(format!(":{secret}")),
        secret.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
        secret.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02X}")),
        secret.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}")),
        secret.chars().rev().collect::<String>(),
    ];
    // Base64 has three phases; the first and last characters depend on what stands around.
    for offset in 0..3 {
        let padded = [vec![0; offset], secret.as_bytes().to_vec()].concat();
        let encoded = STANDARD.encode(padded);
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

/// Panics if any of the files, or of the files in the folders, holds any of the secrets.
pub fn assert_absent(secrets: &[&str], places: &[&Path]) {
    for secret in secrets {
        let forms = forms(secret);
        for file in places.iter().flat_map(|place| files(place)) {
            let Ok(content) = fs::read(&file) else { continue };
            // As text, for the standard library's search is fast in unoptimized tests too.
            let content = String::from_utf8_lossy(&content);
            for form in &forms {
                assert!(!content.contains(form), "a secret stands in {} as {form}", file.display());
            }
        }
    }
}

fn files(place: &Path) -> Vec<PathBuf> {
    if !place.is_dir() {
        return vec![place.to_path_buf()];
    }
    let entries = fs::read_dir(place).unwrap();
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

#[test]
fn a_secret_is_found_in_every_encoding() {
    let secret = "a-secret-that-is-long-enough";
    for (name, content) in [
        ("raw", format!("x{secret}y")),
        ("basic", format!("Basic {}", STANDARD.encode(format!(":{secret}")))),
        ("with a user", STANDARD.encode(format!("me:{secret}"))),
        ("later", STANDARD.encode(format!("xy{secret}z"))),
        ("percent", secret.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"))),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let found = std::panic::catch_unwind(|| assert_absent(&[secret], &[file.path()]));
        assert!(found.is_err(), "{name}");
    }
}
