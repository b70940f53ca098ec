//! Shamir's secret sharing (*How to Share a Secret*, CACM 1979), byte for byte over GF(2⁸).
//!
//! Each byte `a₀` of a secret has its own polynomial `f(x) = a₀ + a₁x + … + aₜ₋₁xᵗ⁻¹` with coefficients that are
//! uniform over the whole field, including the leading one; the share of client number `x ≥ 1` is `f(x)`. Any `t`
//! shares determine the polynomial by Lagrange's formula; fewer reveal nothing. Addition is exclusive or, and products
//! are taken modulo `x⁸ + x⁴ + x³ + x + 1` as in AES (FIPS 197, §4.2), without tables or branches that depend on
//! secrets.
//!
//! The few lines are here because existing crates are unmaintained or pull in elliptic curves and big integers.

use plugin_api::{Error, Result};
use zeroize::Zeroizing;

/// A secret, or a share of one.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// The product in GF(2⁸).
fn product(a: u8, b: u8) -> u8 {
    let (mut a, mut sum) = (a, 0);
    for bit in 0..8 {
        sum ^= a & (b >> bit & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
    }
    sum
}

/// The inverse in GF(2⁸), `a²⁵⁴`; 0 for 0.
fn inverse(a: u8) -> u8 {
    let mut power = a; // a^(2^k - 1) for k = 1, …, 7, whose square is a^254 at the end
    for _ in 0..6 {
        power = product(product(power, power), a);
    }
    product(power, power)
}

/// Splits a secret into shares for the clients 1, 2, …, `clients`; any `1 + coefficients.len()` of them recover it.
pub(crate) fn split(secret: &Secret, clients: u8, coefficients: &[Secret]) -> Vec<Secret> {
    let share = |x: u8| {
        let mut share = Secret::default();
        for coefficient in coefficients.iter().rev().chain([secret]) {
            // Horner's rule.
            share.iter_mut().zip(coefficient.iter()).for_each(|(sum, a)| *sum = product(*sum, x) ^ a);
        }
        share
    };
    (1..=clients).map(share).collect()
}

/// The value at `x` of the polynomial through these points: the secret at 0, a client's share elsewhere.
fn value(points: &[(u8, &Secret)], x: u8) -> Secret {
    let mut value = Secret::default();
    for (i, (xi, yi)) in points.iter().enumerate() {
        let others = points.iter().enumerate().filter(|(j, _)| *j != i);
        let factor = others.fold(1, |factor, (_, (xj, _))| product(factor, product(x ^ xj, inverse(xi ^ xj))));
        value.iter_mut().zip(yi.iter()).for_each(|(sum, y)| *sum ^= product(factor, *y));
    }
    value
}

/// Recovers the secret from shares, each with its client's number. Shares beyond the first `threshold` must be on the
/// same polynomial.
///
/// # Errors
/// If there are fewer than `threshold` shares, or they do not belong to one secret.
pub(crate) fn join(shares: &[(u8, &Secret)], threshold: usize) -> Result<Secret> {
    let Some((first, others)) = shares.split_at_checked(threshold) else {
        return Err(Error::other(format!("{} shares are fewer than {threshold}", shares.len())));
    };
    match others.iter().all(|(x, share)| value(first, *x) == **share) {
        true => Ok(value(first, 0)),
        false => Err(Error::other("the shares are not of one secret")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197, §4.2 and §4.2.1.
        assert_eq!([product(0x57, 0x83), product(0x57, 0x13)], [0xc1, 0xfe]);
        assert!((1..=255).all(|a| product(a, inverse(a)) == 1));
        assert_eq!(inverse(0), 0);
    }

    #[test]
    fn any_so_many_shares_give_the_secret_and_fewer_give_another() {
        let secret = Secret::new(std::array::from_fn(|i| i as u8 * 7));
        let coefficients = [Secret::new([0xa5; 32]), Secret::new(std::array::from_fn(|i| 31 - i as u8))];
        let shares = split(&secret, 5, &coefficients);
        let of = |clients: &[u8]| clients.iter().map(|&x| (x, &shares[usize::from(x) - 1])).collect::<Vec<_>>();
        for clients in [&[1, 2, 3][..], &[5, 1, 4], &[2, 3, 5], &[1, 2, 3, 4, 5]] {
            assert_eq!(join(&of(clients), 3).unwrap(), secret, "{clients:?}");
        }
        assert_ne!(value(&of(&[1, 2]), 0), secret);
        assert_eq!(join(&of(&[1, 2]), 3).unwrap_err().to_string(), "2 shares are fewer than 3");
        let mut wrong = of(&[1, 2, 3]);
        wrong.push((4, &shares[4]));
        assert_eq!(join(&wrong, 3).unwrap_err().to_string(), "the shares are not of one secret");
    }
}
