//! Bodies of Prometheus remote write 1.0, by hand.

/// A number in groups of seven bits.
pub fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A field of bytes.
pub fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// One series with its samples, each a value and milliseconds.
pub fn series(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(1, name.as_bytes(), &mut label);
        field(2, value.as_bytes(), &mut label);
        field(1, &label, &mut series);
    }
    for (value, millis) in samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        varint(*millis as u64, &mut sample);
        field(2, &sample, &mut series);
    }
    series
}

/// A plain body of such series.
pub fn request(all: &[Vec<u8>]) -> Vec<u8> {
    let mut request = Vec::new();
    all.iter().for_each(|series| field(1, series, &mut request));
    request
}

/// It as it goes over the wire.
pub fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}
