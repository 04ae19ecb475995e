//! The configuration that quickstart writes: one that is meant to be read and changed.

use std::fmt::Write;

use super::plan::{Member, Plan};

/// The whole text of `patgate.toml`. It names secrets and never holds one.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let mut text = format!(
        "\
# patgate's configuration, made by `patgate quickstart`. Change it as you like; then
#     patgate check --config patgate.toml
# says whether it holds together. A running patgate takes over what is changed here by itself.
# Relative paths are relative to this file.

# What clients use in place of https://dev.azure.com.
public-url = \"{url}\"

[[listen]]
address     = \"{listen}\"
certificate = \"certs/server.pem\"   # clients trust certs/ca.pem; put your own certificate here
key         = \"certs/server.key\"

[admin]                              # /healthz, /readyz and /metrics
address = \"{admin}\"

[audit]                              # every use of a token, before it happens
folder = \"audit\"
# durability = \"disk\"                # an intent is on the disk before its token is used

[limits]
drain-delay = \"0s\"                  # no balancer has to notice: Ctrl-C stops at once (default: 5s)

[vault.local]                        # the tokens, sealed: `patgate vault seal` adds and replaces them
type = \"sealed\"
path = \"vault.sealed\"
key  = \"vault.key\"                   # whoever has both files has the tokens
",
        url = plan.public_url(),
        listen = plan.listen,
        admin = plan.admin,
    );
    if let Some(address) = plan.sample {
        let _ = write!(
            text,
            "
# For the sample organization alone: where dev.azure.com is reached, and who proves that it is it.
# Without these lines patgate goes to the real one.
[upstream]
addresses = {{ \"dev.azure.com\" = \"{address}\" }}
ca        = \"sample/ca.pem\"
"
        );
    }
    for member in &plan.members {
        credential(&mut text, member);
    }
    client(&mut text, plan);
    for member in &plan.members {
        rules(&mut text, member, plan.sample.is_some());
    }
    text
}

fn credential(text: &mut String, Member { name, owner, .. }: &Member) {
    let _ = write!(
        text,
        "
[credential.{name}]
vault         = \"local\"
secret        = \"{name}\"             # what the vault calls it
organizations = [\"{name}\"]           # the only places this token may go
owner         = {owner}
",
        owner = quoted(owner),
    );
}

fn client(text: &mut String, plan: &Plan) {
    let ip = plan.listen.ip();
    let own = if ip.is_loopback() || ip.is_unspecified() { String::new() } else { format!(", \"{ip}\"") };
    let _ = write!(
        text,
        "
[client.this-machine]                # who may call: nobody else is known
addresses = [\"127.0.0.0/8\", \"::1\"{own}]
"
    );
}

fn rules(text: &mut String, Member { name, .. }: &Member, sample: bool) {
    // In the sample organization one project is left out, so that there is a refusal to see.
    let paths = if sample {
        format!(
            "[\n    \"/{name}/web/**\",\n    \"/{name}/_apis/projects\",\n    \"/{name}/_apis/connectionData\",\n]"
        )
    } else {
        format!("[\"/{name}/**\"]")
    };
    let (repository, project) = if sample { ("web/_git/web", "web") } else { ("any/_git/any", "any") };
    let _ = write!(
        text,
        "
[[rule]]                             # read from top to bottom; the first that matches decides
name       = \"this machine uses {name}\"
clients    = [\"this-machine\"]
paths      = {paths}
allow      = [\"GET\", \"OPTIONS\", \"git:fetch\", \"git:push\"]
credential = \"{name}\"

[[expect]]                           # tests of the rules: run by `check` and whenever this file is read
from    = \"127.0.0.1\"
request = \"GET /{name}/{repository}/info/refs?service=git-upload-pack\"
is      = \"allowed\"
rule    = \"this machine uses {name}\"

[[expect]]
from    = \"127.0.0.1\"
request = \"DELETE /{name}/{project}/_apis/git/repositories/{project}\"
is      = \"refused\"

[[expect]]
from    = \"192.0.2.1\"
request = \"GET /{name}/_apis/projects\"
is      = \"refused\"
"
    );
    if sample {
        let _ = write!(
            text,
            "
[[expect]]
from    = \"127.0.0.1\"
request = \"GET /{name}/payroll/_apis/git/repositories\"
is      = \"refused\"
"
        );
    }
}

/// A TOML string, whatever is in it.
fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(names: &[&str], sample: bool) -> Plan {
        Plan {
            listen: "127.0.0.1:8443".parse().unwrap(),
            admin: "127.0.0.1:9443".parse().unwrap(),
            members: names
                .iter()
                .map(|name| Member {
                    name: (*name).to_owned(),
                    pat: "the-token-itself".into(),
                    owner: "Jane \"J\" D\\oe\u{e9}".into(),
                    repository: None,
                })
                .collect(),
            sample: sample.then(|| "127.0.0.1:9441".parse().unwrap()),
        }
    }

    #[test]
    fn it_is_toml_with_what_was_planned_and_without_a_token() {
        for (names, sample) in [(&["contoso"][..], true), (&["contoso", "fabrikam-2"], false)] {
            let text = text(&plan(names, sample));
            assert!(!text.contains("the-token-itself"));
            let read: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read["public-url"].as_str(), Some("https://localhost:8443"));
            assert_eq!(read["rule"].as_array().unwrap().len(), names.len());
            assert_eq!(read.contains_key("upstream"), sample);
            for name in names {
                let credential = &read["credential"][name];
                assert_eq!(credential["owner"].as_str(), Some("Jane \"J\" D\\oe\u{e9}"));
                assert_eq!(credential["organizations"].as_array().unwrap().len(), 1);
            }
        }
    }
}
