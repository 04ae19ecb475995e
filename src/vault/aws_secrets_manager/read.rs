//! One secret, or several in one request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_sdk_secretsmanager::{Client, error::ProvideErrorMetadata as _, types::SecretValueEntry};
use futures_util::future::join_all;
use zeroize::Zeroizing;

use super::{CURRENT, failure, field::Value};
use crate::vault::VaultError;

/// What was asked for by name, each with what came of it.
#[derive(Default)]
pub(super) struct Answers(pub(super) BTreeMap<Arc<str>, Result<Value, VaultError>>);

/// Reads the version of a secret that is staged so. The stage is always named: what an unstaged read gives is up to
/// the other side.
pub(super) async fn one(client: &Client, name: &str, stage: &str) -> Result<Value, VaultError> {
    let read = client.get_secret_value().secret_id(name).version_stage(stage).send().await;
    let read = read.map_err(|error| failure::of(&error))?;
    let binary = read.secret_binary.is_some();
    // Secrets Manager always says which secret it speaks of; what does not is somebody else's answer.
    if read.arn.is_none() && read.secret_string.is_none() && !binary {
        return Err(failure::unclear());
    }
    value(read.secret_string, binary, read.version_id)
}

fn value(text: Option<String>, binary: bool, version: Option<String>) -> Result<Value, VaultError> {
    let text = text.map(Zeroizing::new);
    if text.is_none() && !binary {
        return Err(VaultError::Unusable("it has no value".into()));
    }
    Ok(Value { text, version: version.map(Into::into) })
}

/// Reads the current versions of several secrets by one request; by one each where patgate may not do so, which is
/// remembered in `refused`, or where the one did not bring what was asked for.
pub(super) async fn many(client: &Client, names: &[Arc<str>], refused: &AtomicBool) -> Answers {
    let mut answers = Answers::default();
    if names.len() > 1 && !refused.load(Ordering::Relaxed) {
        let ids = names.iter().map(ToString::to_string).collect();
        match client.batch_get_secret_value().set_secret_id_list(Some(ids)).send().await {
            Ok(batch) => {
                for error in batch.errors.unwrap_or_default() {
                    let id = error.secret_id.as_deref().unwrap_or_default();
                    if let Some(name) = names.iter().find(|name| ***name == *id) {
                        let why =
                            failure::answered(error.error_code.as_deref(), error.message.as_deref(), 400);
                        answers.0.insert(Arc::clone(name), Err(why));
                    }
                }
                for entry in batch.secret_values.unwrap_or_default() {
                    take(entry, names, &mut answers);
                }
            }
            Err(error) => match failure::of(&error) {
                VaultError::Denied(why)
                    if error.code().is_some_and(|code| code.starts_with("AccessDenied")) =>
                {
                    tracing::info!("secrets are read one by one, for reads of several are refused: {why}");
                    refused.store(true, Ordering::Relaxed);
                }
                VaultError::Denied(_) => {}
                other => {
                    let same = |name: &Arc<str>| (Arc::clone(name), Err(other.clone()));
                    return Answers(names.iter().map(same).collect());
                }
            },
        }
    }
    let rest = names.iter().filter(|name| !answers.0.contains_key(*name));
    let rest = rest.map(|name| async { (Arc::clone(name), one(client, name, CURRENT).await) });
    let rest = join_all(rest).await;
    answers.0.extend(rest);
    answers
}

/// Takes over what is current; what is not, or can't be told whose it is, is read once more by itself.
fn take(entry: SecretValueEntry, names: &[Arc<str>], answers: &mut Answers) {
    let (arn, own) = (entry.arn.clone().unwrap_or_default(), entry.name.clone().unwrap_or_default());
    let is_current = entry.version_stages().iter().any(|stage| stage == CURRENT);
    let binary = entry.secret_binary.is_some();
    let version = entry.version_id;
    let text = entry.secret_string.map(Zeroizing::new);
    if !is_current {
        return;
    }
    for name in names.iter().filter(|name| means(name, &arn, &own)) {
        let text = text.as_ref().map(|text| text.as_str().to_owned());
        answers.0.insert(Arc::clone(name), value(text, binary, version.clone()));
    }
}

/// Whether a name stands for a secret: its own name, its ARN, or its ARN without the six characters that AWS adds.
fn means(name: &str, arn: &str, own: &str) -> bool {
    const ADDED: usize = "-AbCdEf".len();
    name == own
        || name == arn
        || name.starts_with("arn:")
            && arn.strip_prefix(name).is_some_and(|rest| rest.len() == ADDED && rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_batch_is_known_by_name_or_arn() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ado/web-AbCdEf";
        for name in ["ado/web", arn, &arn[..arn.len() - 7]] {
            assert!(means(name, arn, "ado/web"), "{name}");
        }
        for name in ["ado/we", "web", "", &arn[..arn.len() - 8], &arn[..arn.len() - 1], "arn:"] {
            assert!(!means(name, arn, "ado/web"), "{name}");
        }
    }

    #[test]
    fn an_entry_that_is_not_current_is_not_taken() {
        let names = [Arc::<str>::from("web")];
        for (stages, taken) in [(vec![CURRENT], true), (vec!["AWSPREVIOUS"], false), (vec![], false)] {
            let entry = SecretValueEntry::builder()
                .name("web")
                .secret_string("token")
                .version_id("v1")
                .set_version_stages(Some(stages.into_iter().map(str::to_owned).collect()))
                .build();
            let mut answers = Answers::default();
            take(entry, &names, &mut answers);
            assert_eq!(answers.0.contains_key("web"), taken);
        }
    }
}
