//! `fedplug keys`: makes and shows a site's key.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use fedplug_superlink::Identity;

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::check_name;
use crate::sites::site_file::SiteFile;

/// The arguments of `fedplug keys`.
#[derive(Debug, Args)]
pub(super) struct Keys {
    /// The site's name, as experiments call it: letters, digits, `-`, `_` and `.`
    name: String,
    /// The file of the private key [default: NAME.pem]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show the key that the file already contains, and write nothing
    #[arg(long)]
    show: bool,
}

impl Keys {
    /// Makes the key, or reads it, and returns what to do with it, for stdout.
    pub(super) fn execute(self) -> Result<String, CliError> {
        let Self { name, output, show } = self;
        if let Some(problem) = check_name(&name).into_iter().next() {
            return Err(CliError::usage(Diagnostic::new(format!("`{name}`: {}", problem.message))));
        }
        let path = output.unwrap_or_else(|| SiteFile::default_key(&name));
        let identity = if show { Identity::load(&path).map_err(failed)? } else { create(&path)? };
        text(&name, &path, &identity)
    }
}

fn failed(error: fedplug_superlink::Error) -> CliError {
    CliError::usage(Diagnostic::new(error.to_string()))
}

fn create(path: &Path) -> Result<Identity, CliError> {
    if path.symlink_metadata().is_ok() {
        let report = Diagnostic::new(format!("{}: the file exists; a key is never overwritten", path.display()));
        return Err(CliError::usage(
            report.hint("show its fingerprint with --show, or choose another file with --output"),
        ));
    }
    let identity = Identity::generate().map_err(failed)?;
    identity.save(path).map_err(failed)?;
    Ok(identity)
}

fn text(name: &str, path: &Path, identity: &Identity) -> Result<String, CliError> {
    let fingerprint = identity.fingerprint();
    let key = toml_key(name);
    let openssh = openssh(identity.public_pem(), name)
        .ok_or_else(|| CliError::usage(Diagnostic::new(format!("{}: is no P-384 key", path.display()))))?;
    let mut text = String::new();
    let mut line = |line: &str| drop(writeln!(text, "{line}"));
    line(&format!("private key: {} (stays at the site)", path.display()));
    line(&format!("fingerprint: {fingerprint}"));
    line("");
    line("the experiment names the site by:");
    line("");
    line("[federation.sites]");
    line(&format!("{key} = \"sha256:{fingerprint}\""));
    line("");
    line("a SuperLink that registers nodes (`flwr supernode register FILE CONNECTION`) reads a file with:");
    line("");
    line(&openssh);
    Ok(text)
}

/// A site's name as a key of TOML.
fn toml_key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// A public key on P-384 as a line of OpenSSH (RFC 5656).
fn openssh(pem: &str, comment: &str) -> Option<String> {
    const CURVE: &[u8] = b"nistp384";
    const POINT: usize = 1 + 2 * 48;
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(base64).ok()?;
    // The key ends with the uncompressed point (RFC 5480), which OpenSSH takes as it is.
    let point = der.get(der.len().checked_sub(POINT)?..).filter(|point| point[0] == 4)?;
    let mut blob = Vec::new();
    for part in [b"ecdsa-sha2-nistp384", CURVE, point] {
        blob.extend(u32::try_from(part.len()).ok()?.to_be_bytes());
        blob.extend(part);
    }
    Some(format!("ecdsa-sha2-nistp384 {} {comment}", BASE64_STANDARD.encode(blob)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ecparam -name secp384r1 -genkey`, and read by `ssh-keygen -i -m PKCS8`.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEpRaM+pfDj3Lqs8R7xGXBct0vATCQO2xn\n7bc95xIsn+cYEtTFGVA//3eG5cIK6guAte9pZ56n3ynYFMoY7g/ivf1WoBCixc9W\nm/eds6vOjwkOmQ5nVk6qZXwAmxsIhBHF\n-----END PUBLIC KEY-----\n";
    const OPENSSH: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBKUWjPqXw49y6rPEe8RlwXLdLwEwkDtsZ+23PecSLJ/nGBLUxRlQP/93huXCCuoLgLXvaWeep98p2BTKGO4P4r39VqAQosXPVpv3nbOrzo8JDpkOZ1ZOqmV8AJsbCIQRxQ==";

    #[test]
    fn the_line_of_openssh_is_what_ssh_keygen_makes_of_the_key() {
        assert_eq!(openssh(PEM, "clinic-a").unwrap(), format!("{OPENSSH} clinic-a"));
        for pem in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no base64!"] {
            assert_eq!(openssh(pem, "clinic-a"), None, "{pem}");
        }
    }

    #[test]
    fn a_name_with_a_point_is_quoted_in_toml() {
        assert_eq!((toml_key("clinic-a"), toml_key("clinic.a")), ("clinic-a".to_owned(), "\"clinic.a\"".to_owned()));
    }
}
