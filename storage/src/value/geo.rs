//! Positions on the Earth as sorted-set scores, and the search around them.
//!
//! Longitude and latitude are each cut into 2^26 steps and their bits interleaved, so that a score of 52 bits, exact in a double, names a
//! cell of about 0.6 m, and the cells of one coarser cell are one range of scores:
//!
//! ```text
//! latitude bits   25      24       ...   0          a cell of `steps` bits each way is the
//! score bits   51   50  49  48     ... 1   0        upper 2 * steps bits of the score
//! longitude   25      24           ... 0
//! ```
//!
//! A search takes the cell size from the area's radius, scans the cell of its centre and the eight around it as far as they can matter, and
//! checks every candidate exactly. Distances are great circles on a sphere (haversine). Formulas and constants are the servers' usual ones, so
//! that results agree to the printed digits, in order too. Cost: O(log n + candidates); nothing allocates but the polygon.

use std::f64::consts::PI;
use std::ops::RangeInclusive;

use super::number::LongDouble;

/// Bits per coordinate of a score.
const STEPS: u32 = 26;

const LONGITUDES: RangeInclusive<f64> = -180.0..=180.0;
/// Where a square Mercator map ends.
const LATITUDES: RangeInclusive<f64> = -85.051_128_78..=85.051_128_78;

const EARTH_RADIUS_METRES: f64 = 6_372_797.560_856;
/// Half the equator's length in the Mercator projection: the radius at which one step is enough.
const MERCATOR_MAX_METRES: f64 = 20_037_726.37;

const RADIANS_PER_DEGREE: f64 = PI / 180.0;

/// A place: longitude and latitude in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    longitude: f64,
    latitude: f64,
}

impl Position {
    /// `None` outside ±180 and ±85.05112878 degrees.
    pub fn new(longitude: f64, latitude: f64) -> Option<Self> {
        (LONGITUDES.contains(&longitude) && LATITUDES.contains(&latitude)).then_some(Self {
            longitude,
            latitude,
        })
    }

    /// The middle of the cell that a score names. Scores that are no cells give some position.
    pub fn from_score(score: f64) -> Self {
        let cell = Cell {
            bits: score_bits(score),
            steps: STEPS,
        };
        let bounds = cell.bounds();
        Self {
            longitude: ((bounds.west + bounds.east) / 2.0)
                .clamp(*LONGITUDES.start(), *LONGITUDES.end()),
            latitude: ((bounds.south + bounds.north) / 2.0)
                .clamp(*LATITUDES.start(), *LATITUDES.end()),
        }
    }

    pub fn longitude(self) -> f64 {
        self.longitude
    }

    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// The cell's number as a sorted set's score.
    pub fn score(self) -> f64 {
        Cell::at(self, STEPS, &LATITUDES).bits as f64
    }

    /// Metres along the great circle.
    pub fn distance(self, other: Self) -> f64 {
        let v = ((radians(other.longitude) - radians(self.longitude)) / 2.0).sin();
        if v == 0.0 {
            return self.latitude_distance(other);
        }
        let latitude = radians(self.latitude);
        let other_latitude = radians(other.latitude);
        let u = ((other_latitude - latitude) / 2.0).sin();
        let a = u * u + latitude.cos() * other_latitude.cos() * v * v;
        2.0 * EARTH_RADIUS_METRES * a.sqrt().asin()
    }

    /// The standard geohash of the position: eleven characters, the last always `0`.
    pub fn geohash(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        // The standard counts latitudes to the poles.
        let bits = Cell::at(self, STEPS, &(-90.0..=90.0)).bits;
        std::array::from_fn(|index| match index {
            // 52 bits fill ten characters of five.
            10 => ALPHABET[0],
            _ => ALPHABET[(bits >> (47 - index * 5)) as usize & 31],
        })
    }

    /// Metres between the parallels.
    fn latitude_distance(self, other: Self) -> f64 {
        EARTH_RADIUS_METRES * (radians(other.latitude) - radians(self.latitude)).abs()
    }
}

/// Units of length, as commands name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Metres,
    Kilometres,
    Feet,
    Miles,
}

impl Unit {
    /// `m`, `km`, `ft` or `mi`, in any case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        [
            (&b"m"[..], Self::Metres),
            (b"km", Self::Kilometres),
            (b"ft", Self::Feet),
            (b"mi", Self::Miles),
        ]
        .into_iter()
        .find_map(|(name, unit)| text.eq_ignore_ascii_case(name).then_some(unit))
    }

    /// The unit's length in metres.
    pub fn metres(self) -> f64 {
        match self {
            Self::Metres => 1.0,
            Self::Kilometres => 1000.0,
            Self::Feet => 0.3048,
            Self::Miles => 1609.34,
        }
    }
}

/// What a search asks for.
#[derive(Clone, Debug)]
pub struct Area {
    center: Position,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// All in metres.
    Circle {
        radius: f64,
    },
    Rectangle {
        width: f64,
        height: f64,
    },
    Polygon {
        vertices: Vec<Position>,
    },
}

impl Area {
    /// Everything within a distance, which is not negative.
    pub fn circle(center: Position, radius: f64, unit: Unit) -> Self {
        Self {
            center,
            shape: Shape::Circle {
                radius: radius * unit.metres(),
            },
        }
    }

    /// A box along the meridians and parallels; its sides are not negative.
    pub fn rectangle(center: Position, width: f64, height: f64, unit: Unit) -> Self {
        let (width, height) = (width * unit.metres(), height * unit.metres());
        Self {
            center,
            shape: Shape::Rectangle { width, height },
        }
    }

    /// A polygon with straight sides on the map of degrees: sides do not cross the 180th meridian. Distances are told from the vertices' centre on the sphere.
    pub fn polygon(vertices: Vec<Position>) -> Self {
        let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
        for vertex in &vertices {
            let (longitude, latitude) = (radians(vertex.longitude), radians(vertex.latitude));
            x += latitude.cos() * longitude.cos();
            y += latitude.cos() * longitude.sin();
            z += latitude.sin();
        }
        // The sum points the same way as the mean.
        let center = Position {
            longitude: degrees(y.atan2(x)),
            latitude: degrees(z.atan2((x * x + y * y).sqrt())),
        };
        Self {
            center,
            shape: Shape::Polygon { vertices },
        }
    }

    /// The ranges of scores, from the first value up to but not including the second, that hold everything in the area.
    ///
    /// In the order in which results are given; at most nine, and none twice.
    pub fn score_ranges(&self) -> impl Iterator<Item = (f64, f64)> + use<> {
        let bounds = self.bounds();
        let mut steps = steps_for(self.reach(), self.center.latitude);
        let mut center = Cell::at(self.center, steps, &LATITUDES);
        if steps > 1 && !center.neighbours_cover(&bounds) {
            steps -= 1;
            center = Cell::at(self.center, steps, &LATITUDES);
        }
        let cell = center.bounds();
        // From the second step on, neighbours on a side that the area does not reach are left out.
        let side = |reached: bool| reached || steps < 2;
        let north = side(cell.north <= bounds.north);
        let south = side(cell.south >= bounds.south);
        let east = side(cell.east <= bounds.east);
        let west = side(cell.west >= bounds.west);

        let mut last = None;
        [
            (true, 0, 0),
            (north, 0, 1),
            (south, 0, -1),
            (east, 1, 0),
            (west, -1, 0),
            (north && east, 1, 1),
            (north && west, -1, 1),
            (south && east, 1, -1),
            (south && west, -1, -1),
        ]
        .into_iter()
        .filter(|&(wanted, ..)| wanted)
        .map(move |(_, east, north)| center.neighbour(east, north))
        .filter(move |&cell| {
            // With cells of half the Earth, going east and west leads to the same one.
            let repeated = last == Some(cell);
            last = Some(cell);
            !repeated
        })
        .map(Cell::score_range)
    }

    /// The distance in metres from the area's centre, if the position is inside.
    pub fn distance_inside(&self, position: Position) -> Option<f64> {
        match &self.shape {
            Shape::Circle { radius } => {
                let distance = self.center.distance(position);
                (distance <= *radius).then_some(distance)
            }
            Shape::Rectangle { width, height } => {
                if position.latitude_distance(self.center) > height / 2.0 {
                    return None;
                }
                // Measured along the position's own parallel.
                let on_meridian = Position {
                    longitude: self.center.longitude,
                    latitude: position.latitude,
                };
                if position.distance(on_meridian) > width / 2.0 {
                    return None;
                }
                Some(self.center.distance(position))
            }
            Shape::Polygon { vertices } => {
                polygon_contains(vertices, position).then(|| self.center.distance(position))
            }
        }
    }

    /// The farthest that the area goes from its centre, in metres.
    fn reach(&self) -> f64 {
        match &self.shape {
            Shape::Circle { radius } => *radius,
            Shape::Rectangle { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
            Shape::Polygon { vertices } => {
                let Bounds {
                    west,
                    south,
                    east,
                    north,
                } = Bounds::around(vertices);
                [(west, south), (west, north), (east, south), (east, north)]
                    .map(|(longitude, latitude)| {
                        self.center.distance(Position {
                            longitude,
                            latitude,
                        })
                    })
                    .into_iter()
                    .fold(0.0, f64::max)
            }
        }
    }

    /// The box of degrees around the area; may go beyond ±180 and ±90.
    fn bounds(&self) -> Bounds {
        let (width, height) = match &self.shape {
            Shape::Circle { radius } => (*radius, *radius),
            Shape::Rectangle { width, height } => (width / 2.0, height / 2.0),
            Shape::Polygon { vertices } => return Bounds::around(vertices),
        };
        let Position {
            longitude,
            latitude,
        } = self.center;
        let latitude_delta = degrees(height / EARTH_RADIUS_METRES);
        // Meridians are closest at the edge nearer to the pole.
        let polar_edge = if latitude < 0.0 {
            latitude - latitude_delta
        } else {
            latitude + latitude_delta
        };
        let longitude_delta = degrees(width / EARTH_RADIUS_METRES / radians(polar_edge).cos());
        Bounds {
            west: longitude - longitude_delta,
            south: latitude - latitude_delta,
            east: longitude + longitude_delta,
            north: latitude + latitude_delta,
        }
    }
}

/// Appends a distance with four decimals, ties to even.
pub fn write_distance(distance: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    let rounded = (distance * 10_000.0).round_ties_even() / 10_000.0;
    write!(out, "{rounded:.4}").expect("writing to a vector succeeds");
}

/// Appends a longitude or latitude as replies show it: up to 17 decimals.
pub fn write_coordinate(degrees: f64, out: &mut Vec<u8>) {
    LongDouble::from(degrees).write(out);
}

/// A box of degrees.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl Bounds {
    fn around(vertices: &[Position]) -> Self {
        let nothing = Self {
            west: f64::INFINITY,
            south: f64::INFINITY,
            east: f64::NEG_INFINITY,
            north: f64::NEG_INFINITY,
        };
        vertices.iter().fold(nothing, |bounds, vertex| Self {
            west: bounds.west.min(vertex.longitude),
            south: bounds.south.min(vertex.latitude),
            east: bounds.east.max(vertex.longitude),
            north: bounds.north.max(vertex.latitude),
        })
    }
}

/// A cell of the map: the upper `2 * steps` bits of the scores in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bits: u64,
    steps: u32,
}

impl Cell {
    /// The cell of a position, with latitudes counted over `latitudes`.
    ///
    /// The eastern and northern edges of the map fall into a cell past the last one, which scores can express.
    fn at(position: Position, steps: u32, latitudes: &RangeInclusive<f64>) -> Self {
        let cells = (1u64 << steps) as f64;
        let part = |value: f64, range: &RangeInclusive<f64>| {
            (value - range.start()) / (range.end() - range.start())
        };
        let column = (part(position.longitude, &LONGITUDES) * cells) as u32;
        let row = (part(position.latitude, latitudes) * cells) as u32;
        Self {
            bits: interleave(row, column),
            steps,
        }
    }

    fn bounds(self) -> Bounds {
        let (row, column) = deinterleave(self.bits);
        let cells = (1u64 << self.steps) as f64;
        let edge = |number: u32, range: &RangeInclusive<f64>| {
            range.start() + f64::from(number) / cells * (range.end() - range.start())
        };
        Bounds {
            west: edge(column, &LONGITUDES),
            south: edge(row, &LATITUDES),
            east: edge(column.wrapping_add(1), &LONGITUDES),
            north: edge(row.wrapping_add(1), &LATITUDES),
        }
    }

    /// The cell so many cells away, around the edges of the map.
    fn neighbour(self, east: i32, north: i32) -> Self {
        let (row, column) = deinterleave(self.bits);
        let mask = (1u32 << self.steps) - 1;
        // A row or column past the last one stays as it is unless it is the one to change.
        let moved = |number: u32, by: i32| {
            if by == 0 {
                number
            } else {
                number.wrapping_add_signed(by) & mask
            }
        };
        Self {
            bits: interleave(moved(row, north), moved(column, east)),
            steps: self.steps,
        }
    }

    /// Whether this cell with those around it reaches to the bounds in each direction.
    fn neighbours_cover(self, bounds: &Bounds) -> bool {
        self.neighbour(0, 1).bounds().north >= bounds.north
            && self.neighbour(0, -1).bounds().south <= bounds.south
            && self.neighbour(1, 0).bounds().east >= bounds.east
            && self.neighbour(-1, 0).bounds().west <= bounds.west
    }

    fn score_range(self) -> (f64, f64) {
        let shift = 2 * (STEPS - self.steps);
        (
            (self.bits << shift) as f64,
            ((self.bits + 1) << shift) as f64,
        )
    }
}

/// Steps such that a cell and its neighbours hold a circle of this radius at this latitude.
fn steps_for(radius_metres: f64, latitude: f64) -> u32 {
    if radius_metres == 0.0 {
        return STEPS;
    }
    let mut steps = 1i32;
    let mut reach = radius_metres;
    // Ends for every radius but zero: doubling reaches the limit after at most 1,100 rounds.
    while reach < MERCATOR_MAX_METRES {
        reach *= 2.0;
        steps += 1;
    }
    // Cells are wide enough for the circle to touch two, then narrower towards the poles.
    steps -= 2;
    if latitude.abs() > 66.0 {
        steps -= 1;
    }
    if latitude.abs() > 80.0 {
        steps -= 1;
    }
    steps.clamp(1, STEPS as i32) as u32
}

/// Whether a ray from the position crosses an odd number of sides.
fn polygon_contains(vertices: &[Position], position: Position) -> bool {
    let Some(&last) = vertices.last() else {
        return false;
    };
    let mut inside = false;
    let mut previous = last;
    for &vertex in vertices {
        if (vertex.latitude > position.latitude) != (previous.latitude > position.latitude) {
            let crossing = (previous.longitude - vertex.longitude)
                * (position.latitude - vertex.latitude)
                / (previous.latitude - vertex.latitude)
                + vertex.longitude;
            inside ^= position.longitude < crossing;
        }
        previous = vertex;
    }
    inside
}

/// The bits of a score as a C program on x86-64 converts it: only defined for cells, but some position has to come out.
fn score_bits(score: f64) -> u64 {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    if score < 0.0 {
        score as i64 as u64
    } else if score < LIMIT {
        score as u64
    } else {
        0
    }
}

/// Puts the bits of `even` at even places and those of `odd` between them.
fn interleave(even: u32, odd: u32) -> u64 {
    spread(even) | spread(odd) << 1
}

fn deinterleave(bits: u64) -> (u32, u32) {
    (gather(bits), gather(bits >> 1))
}

const SPREAD_STEPS: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, 0x5555_5555_5555_5555),
];

/// Moves each bit to twice its place.
fn spread(bits: u32) -> u64 {
    SPREAD_STEPS
        .iter()
        .fold(u64::from(bits), |bits, (shift, mask)| {
            (bits | bits << shift) & mask
        })
}

/// Takes the bits at even places.
fn gather(bits: u64) -> u32 {
    let bits = bits & SPREAD_STEPS[4].1;
    let halves = SPREAD_STEPS
        .iter()
        .rev()
        .zip(SPREAD_STEPS.iter().rev().skip(1));
    let bits = halves.fold(bits, |bits, ((shift, _), (_, mask))| {
        (bits | bits >> shift) & mask
    });
    (bits | bits >> 16) as u32
}

fn radians(degrees: f64) -> f64 {
    degrees * RADIANS_PER_DEGREE
}

fn degrees(radians: f64) -> f64 {
    radians / RADIANS_PER_DEGREE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(longitude: f64, latitude: f64) -> Position {
        Position::new(longitude, latitude).unwrap()
    }

    fn palermo() -> Position {
        at(13.361389, 38.115556)
    }

    fn catania() -> Position {
        at(15.087269, 37.502669)
    }

    fn in_ranges(area: &Area, position: Position) -> bool {
        area.score_ranges()
            .any(|(min, max)| (min..max).contains(&position.score()))
    }

    #[test]
    fn scores_and_positions_are_those_of_the_reference_server() {
        assert_eq!(palermo().score(), 3_479_099_956_230_698.0);
        let mut text = Vec::new();
        write_coordinate(
            Position::from_score(palermo().score()).longitude(),
            &mut text,
        );
        text.push(b' ');
        write_coordinate(
            Position::from_score(palermo().score()).latitude(),
            &mut text,
        );
        assert_eq!(text, b"13.36138933897018433 38.11555639549629859");
        let hash =
            |score: f64| String::from_utf8(Position::from_score(score).geohash().to_vec()).unwrap();
        assert_eq!(hash(palermo().score()), "sqc8b49rny0");
        assert_eq!(hash(catania().score()), "sqdtr74hyu0");
    }

    #[test]
    fn scores_that_name_no_cell_still_have_a_position() {
        for (score, hash) in [
            (0.0, b"00bh0hbj200"),
            (4_503_599_627_370_495.0, b"zzpgzgpfxz0"),
            (4_503_599_627_370_496.0, b"bp05b5048p0"),
            (-1.0, b"bp05b5048p0"),
            (1.5, b"00bh0hbj210"),
            (1e300, b"00bh0hbj200"),
            (f64::INFINITY, b"00bh0hbj200"),
        ] {
            assert_eq!(Position::from_score(score).geohash(), *hash, "{score}");
        }
        assert_eq!(Position::from_score(-1.0).longitude(), 180.0);
    }

    #[test]
    fn distances_have_four_decimals_in_every_unit() {
        let distance = Position::from_score(palermo().score())
            .distance(Position::from_score(catania().score()));
        for (unit, text) in [
            ("m", "166274.1516"),
            ("KM", "166.2742"),
            ("ft", "545518.8700"),
            ("Mi", "103.3182"),
        ] {
            let mut out = Vec::new();
            write_distance(
                distance / Unit::parse(unit.as_bytes()).unwrap().metres(),
                &mut out,
            );
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        assert_eq!(Unit::parse(b"yd"), None);
    }

    #[test]
    fn positions_off_the_map_are_refused() {
        assert!(Position::new(180.0, 85.05112878).is_some());
        for (longitude, latitude) in [
            (180.1, 0.0),
            (0.0, 85.06),
            (f64::NAN, 0.0),
            (0.0, f64::NEG_INFINITY),
        ] {
            assert_eq!(Position::new(longitude, latitude), None);
        }
    }

    #[test]
    fn a_triangle_holds_its_middle_and_not_its_corner_outside() {
        let area = Area::polygon(vec![at(0.0, 0.0), at(10.0, 0.0), at(0.0, 10.0)]);
        assert!(area.distance_inside(at(2.0, 2.0)).is_some());
        assert_eq!(area.distance_inside(at(9.0, 9.0)), None);
        assert_eq!(
            Area::polygon(Vec::new()).distance_inside(at(0.0, 0.0)),
            None
        );
    }

    #[test]
    fn absurd_sizes_search_everything() {
        for size in [1e300, f64::INFINITY] {
            for area in [
                Area::circle(palermo(), size, Unit::Kilometres),
                Area::rectangle(palermo(), size, size, Unit::Kilometres),
            ] {
                assert!(in_ranges(&area, at(-170.0, -80.0)));
                assert!(area.distance_inside(at(-170.0, -80.0)).is_some());
            }
        }
        let point = Area::circle(palermo(), 0.0, Unit::Metres);
        assert!(in_ranges(&point, palermo()));
    }

    proptest! {
        #[test]
        fn bits_survive_interleaving(even: u32, odd: u32) {
            prop_assert_eq!(deinterleave(interleave(even, odd)), (even, odd));
        }

        #[test]
        fn a_score_is_within_a_metre_of_its_position(longitude in -180.0..180.0f64, latitude in -85.0..85.0f64) {
            let position = at(longitude, latitude);
            prop_assert!(position.distance(Position::from_score(position.score())) < 1.0);
        }

        #[test]
        fn what_is_inside_is_in_a_range(
            longitude in -170.0..170.0f64,
            latitude in -75.0..75.0f64,
            (east, north) in (-5.0..5.0f64, -5.0..5.0f64),
            size in 1.0..500_000.0f64,
        ) {
            let center = at(longitude, latitude);
            let candidate = Position::from_score(at(longitude + east, latitude + north).score());
            let corner = |east: f64, north: f64| at(longitude + east, latitude + north);
            for area in [
                Area::circle(center, size, Unit::Metres),
                Area::rectangle(center, size, size / 2.0, Unit::Metres),
                Area::polygon(vec![corner(0.0, 4.0), corner(4.0, -1.0), corner(-4.0, -3.0)]),
            ] {
                if area.distance_inside(candidate).is_some() {
                    prop_assert!(in_ranges(&area, candidate));
                }
            }
        }

        #[test]
        fn no_score_makes_it_panic(bits: u64, other: u64) {
            let position = Position::from_score(f64::from_bits(bits));
            let other = Position::from_score(f64::from_bits(other));
            position.geohash();
            let area = Area::circle(position, other.distance(position), Unit::Miles);
            area.distance_inside(other);
            prop_assert!(area.score_ranges().count() <= 9);
        }
    }
}
