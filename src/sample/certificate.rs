//! Certificates made on the spot, by an authority whose key is thrown away.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::clock;

/// A server's certificate with its key, and the authority that clients have to trust for it.
pub struct Issued {
    /// The authority's certificate, PEM. Its key no longer exists: it can't sign anything else.
    pub authority: String,
    /// The server's certificate, PEM.
    pub certificate: String,
    /// The server's private key, PKCS#8 PEM.
    pub key: String,
}

/// Issues a certificate for host names and addresses, valid for `days` from yesterday on.
///
/// The authority has `keyCertSign` and the certificate names its issuer's key: Python's strict mode asks
/// for both.
///
/// # Errors
/// A name that is neither a host name nor an address, or a failure of the random number generator.
pub fn issue(authority: &str, names: &[String], days: u16) -> Result<Issued, rcgen::Error> {
    let (from, until) = validity(days);
    let midnight = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, authority);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (ca.not_before, ca.not_after) = (midnight(from), midnight(until));
    let ca_key = KeyPair::generate()?;
    let root = ca.self_signed(&ca_key)?;

    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, names.first().map_or("localhost", String::as_str));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = (midnight(from), midnight(until));
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok(Issued { authority: root.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Yesterday (clocks differ), and the day after `days`.
fn validity(days: u16) -> (jiff::civil::Date, jiff::civil::Date) {
    let today = jiff::Timestamp::try_from(clock::wall())
        .map_or(jiff::civil::date(2026, 1, 1), |now| jiff::tz::TimeZone::UTC.to_datetime(now).date());
    let until = today.saturating_add(jiff::Span::new().days(i32::from(days)));
    (today.yesterday().unwrap_or(today), until)
}
