use super::*;

fn key(byte: u8) -> SigningKey {
    SigningKey::from_slice(&[byte; 32]).unwrap()
}

fn request(byte: u8) -> CertReq {
    super::request(&key(byte)).unwrap()
}

/// What matter.js 0.17.9 sent.
const MATTER_JS: &[u8] = include_bytes!("matter-js.der");

#[test]
fn good_requests_are_taken_in_both_forms() {
    let request = request(7);
    let der = request.to_der().unwrap();
    let checked = CheckedCsr::check(&der).unwrap();
    assert_eq!(checked.der(), der);
    assert_eq!(&checked.public_key()[..], key(7).verifying_key().to_sec1_point(false).as_bytes());
    let pem = der::pem::encode_string("CERTIFICATE REQUEST", der::pem::LineEnding::CRLF, &der).unwrap();
    assert_eq!(CheckedCsr::check(format!("\n{pem}\n").as_bytes()), Ok(checked));
    assert!(CheckedCsr::check(MATTER_JS).is_ok());
}

#[test]
fn a_request_that_is_cut_or_goes_on_is_refused() {
    for der in [request(7).to_der().unwrap(), MATTER_JS.to_vec()] {
        for length in 0..der.len() {
            assert_eq!(CheckedCsr::check(&der[..length]), Err(CsrRefused::Malformed), "{length} bytes");
        }
        assert_eq!(CheckedCsr::check(&[&der[..], b"\0"].concat()), Err(CsrRefused::Malformed));
    }
    assert_eq!(CheckedCsr::check(b"-----BEGIN CERTIFICATE REQUEST-----\n"), Err(CsrRefused::Malformed));
    assert_eq!(CheckedCsr::check(&vec![0x30; CSR_MAX + 1]), Err(CsrRefused::TooLong(CSR_MAX + 1)));
}

#[test]
fn no_bit_of_a_request_can_be_changed() {
    let der = request(7).to_der().unwrap();
    for bit in 0..der.len() * 8 {
        let mut other = der.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(CheckedCsr::check(&other).is_err(), "bit {bit}");
    }
}

#[test]
fn another_key_curve_or_algorithm_is_named() {
    let mut other_key = request(7);
    other_key.info.public_key = request(8).info.public_key;
    assert_eq!(CheckedCsr::check(&other_key.to_der().unwrap()), Err(CsrRefused::Signature));
    let mut other_curve = request(7);
    // secp384r1
    let p384 = ObjectIdentifier::new_unwrap("1.3.132.0.34");
    other_curve.info.public_key.algorithm.parameters = Some(der::Any::encode_from(&p384).unwrap());
    assert_eq!(CheckedCsr::check(&other_curve.to_der().unwrap()), Err(CsrRefused::Curve));
    let mut off_curve = request(7);
    let mut point = off_curve.info.public_key.subject_public_key.as_bytes().unwrap().to_vec();
    *point.last_mut().unwrap() ^= 1;
    off_curve.info.public_key.subject_public_key = der::asn1::BitString::from_bytes(&point).unwrap();
    assert_eq!(CheckedCsr::check(&off_curve.to_der().unwrap()), Err(CsrRefused::Curve));
    let mut rsa = request(7);
    rsa.info.public_key.algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    assert_eq!(CheckedCsr::check(&rsa.to_der().unwrap()), Err(CsrRefused::Curve));
    let mut sha384 = request(7);
    sha384.algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
    assert_eq!(CheckedCsr::check(&sha384.to_der().unwrap()), Err(CsrRefused::Algorithm));
}
