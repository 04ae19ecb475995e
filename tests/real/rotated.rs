//! Tokens that are rotated under load in the vaults that need an installation.

use serde_json::json;

use crate::{
    aws::KEYS,
    moto::{Moto, REGION},
    openbao::OpenBao,
    rotation,
    support::{certificate, setup},
};

const TIMES: usize = 10;

/// The lines of `[vault.NAME]` for an OpenBao whose role `patgate` has this id.
fn hashicorp(bao: &OpenBao, role: &str) -> String {
    format!(
        "type = \"hashicorp\"\naddress = \"https://vault.test:8200\"\n\
         addresses = {{ \"vault.test\" = \"{}\" }}\nca = \"{}\"\n\
         auth = {{ method = \"approle\", role-id = \"{role}\", secret-id-file = \"{}\" }}",
        bao.tls(),
        bao.path("ca.pem").display(),
        bao.secret_id().0.display(),
    )
}

#[test]
#[ignore = "needs OpenBao"]
fn a_rotation_in_openbao_costs_no_client_an_error() {
    let bao = OpenBao::start();
    let role = bao.usual(&json!({}));
    rotation::survives(&hashicorp(&bao, &role), "secret/ado/web#pat", TIMES, |value| {
        bao.put("ado/web", &json!({ "pat": value }));
    });
}

/// What patgate logged in with is revoked along with the old value, so that it meets both at once.
#[test]
#[ignore = "needs OpenBao"]
fn a_rotation_in_openbao_that_ends_the_login_too_costs_no_client_an_error() {
    let bao = OpenBao::start();
    let role = bao.usual(&json!({}));
    let vault = hashicorp(&bao, &role);
    rotation::survives(&vault, "secret/ado/web#pat", TIMES, |value| {
        bao.put("ado/web", &json!({ "pat": value }));
        bao.ok("POST", "sys/leases/revoke-prefix/auth/approle/login", &json!({}));
    });
}

#[test]
#[ignore = "needs moto_server"]
fn a_rotation_in_secrets_manager_costs_no_client_an_error() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let moto = Moto::tls(folder.path());
    let vault = format!(
        "type = \"aws-secrets-manager\"\nregion = \"{REGION}\"\nendpoint = \"{}\"\nca = \"{}\"",
        moto.url(),
        folder.path().join("ca.pem").display()
    );
    rotation::survives_with(setup().environment(&KEYS), &vault, "ado/web#pat", TIMES, |value| {
        moto.put("ado/web", &json!({ "owner": "team-web", "pat": value }).to_string());
    });
}
