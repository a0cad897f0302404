// Restores pictures with an exported Core ML package, on iOS and macOS.
//
// Add the .mlpackage that app.json names to the app's target, and this folder as a folder reference.
// Then
//
//   let folder = Bundle.main.url(forResource: "swift", withExtension: nil)!
//   let facts = try Facts(folder: folder)
//   let restorer = Restorer(facts: facts, network: try CoreMLNetwork(facts: facts, bundle: .main))
//   assert(try restorer.selfTest(folder: folder).passed)
//   let restored = try restorer.restore(Picture(cgImage: image))
//
// Everything that is particular to the file stands in app.json. Evidence: reslite's tests compile
// what needs no Apple framework and run it on Linux, with another runtime in place of Core ML;
// what stands inside canImport is parsed there, and was neither compiled nor run. On a device the
// self-test is the proof.

import Foundation

/// A picture, RGB bytes in rows.
struct Picture {
    let height: Int
    let width: Int
    var pixels: [UInt8]
}

/// What app.json says.
struct Facts: Decodable {
    struct Tensor: Decodable {
        let name: String
        let dtype: String
    }

    /// The further tensors of a network that averages features over the whole picture.
    struct Pooling: Decodable {
        let channels: Int
        let features: Tensor
        let pooled: Tensor
    }

    struct Golden: Decodable {
        let height: Int
        let width: Int
        let tolerance: Int
    }

    let file: String
    let scale: Int
    let halo: Int
    let multiple: Int
    let window: [Int]
    let input: Tensor
    let output: Tensor
    let pooling: Pooling?
    let golden: Golden

    init(folder: URL) throws {
        let data = try Data(contentsOf: folder.appendingPathComponent("app.json"))
        self = try JSONDecoder().decode(Facts.self, from: data)
    }
}

/// Restores one window. A network that pools takes the average of its features over the whole
/// picture, too, and gives the window's features: all of the first channel, then the second (NCHW).
protocol Network {
    func run(_ window: Picture, average: [Float]?) throws -> (restored: Picture, features: [Float])
}

/// What a network of arrays takes: floats in [0, 1], all of red, then green, then blue (NCHW).
func packed(_ picture: Picture) -> [Float] {
    let plane = picture.height * picture.width
    return (0..<3 * plane).map { Float(picture.pixels[3 * ($0 % plane) + $0 / plane]) / 255 }
}

/// The picture that such a network gives. Networks overshoot, so clamp before rounding.
func unpacked(_ values: [Float], height: Int, width: Int) -> Picture {
    let plane = height * width
    let pixels = (0..<3 * plane).map { index -> UInt8 in
        let value = min(max(values[index % 3 * plane + index / 3], 0), 1) * 255
        return UInt8(value.rounded())
    }
    return Picture(height: height, width: width, pixels: pixels)
}

/// What a tile reads (from start) and keeps along one axis, in input pixels.
struct Span: Equatable {
    let start: Int
    let keepStart: Int
    let keepStop: Int
}

/// Cover an axis with windows. A halo is cut off at each end but at the picture's edges.
func spans(extent: Int, window: Int, halo: Int) -> [Span] {
    var found: [Span] = []
    var kept = 0
    while kept < extent {
        let start = min(max(0, kept - halo), extent - window)
        let keepStop = start + window == extent ? extent : start + window - halo
        found.append(Span(start: start, keepStart: kept, keepStop: keepStop))
        kept = keepStop
    }
    return found
}

/// The pixel that stands at an index of an axis that is continued by reflection.
func reflected(_ index: Int, _ extent: Int) -> Int {
    if extent == 1 { return 0 }
    let at = index % (2 * extent - 2)
    return at < extent ? at : 2 * extent - 2 - at
}

/// Restores pictures of any size in tiles.
struct Restorer {
    let facts: Facts
    let network: Network

    func restore(_ picture: Picture) throws -> Picture {
        let (scale, height, width) = (facts.scale, facts.window[0], facts.window[1])
        // Continued by reflection up to a multiple that the network takes, and up to a whole window.
        let (rows, columns) = (multiple(of: picture.height), multiple(of: picture.width))
        let tiles = spans(extent: max(height, rows), window: height, halo: facts.halo).flatMap { y in
            spans(extent: max(width, columns), window: width, halo: facts.halo).map { x in (y, x) }
        }
        let average = try facts.pooling.map { try averaged($0, picture, tiles, rows, columns) }
        let pixels = [UInt8](repeating: 0, count: 3 * scale * picture.height * scale * picture.width)
        var result = Picture(height: scale * picture.height, width: scale * picture.width, pixels: pixels)
        for (y, x) in tiles {
            let window = cut(picture, top: y.start, left: x.start)
            paste(try network.run(window, average: average).restored, into: &result, y, x)
        }
        return result
    }

    /// Average the network's features over a picture: a first pass, in which every pixel counts once.
    /// Pixels that fill a window beyond the rows and columns do not count.
    private func averaged(
        _ pooling: Facts.Pooling, _ picture: Picture, _ tiles: [(Span, Span)], _ rows: Int, _ columns: Int
    ) throws -> [Float] {
        let (height, width) = (facts.window[0], facts.window[1])
        let none = [Float](repeating: 0, count: pooling.channels)
        var total = [Double](repeating: 0, count: pooling.channels)
        for (y, x) in tiles {
            let window = cut(picture, top: y.start, left: x.start)
            let features = try network.run(window, average: none).features
            for c in 0..<pooling.channels {
                for row in y.keepStart..<min(y.keepStop, rows) {
                    for column in x.keepStart..<min(x.keepStop, columns) {
                        total[c] += Double(features[(c * height + row - y.start) * width + column - x.start])
                    }
                }
            }
        }
        return total.map { Float($0 / Double(rows * columns)) }
    }

    private func multiple(of extent: Int) -> Int {
        (extent + facts.multiple - 1) / facts.multiple * facts.multiple
    }

    /// The window that begins at a pixel.
    private func cut(_ picture: Picture, top: Int, left: Int) -> Picture {
        let (height, width) = (facts.window[0], facts.window[1])
        var pixels = [UInt8](repeating: 0, count: 3 * height * width)
        for y in 0..<height {
            let row = reflected(top + y, picture.height) * picture.width
            for x in 0..<width {
                let from = 3 * (row + reflected(left + x, picture.width))
                for c in 0..<3 { pixels[3 * (y * width + x) + c] = picture.pixels[from + c] }
            }
        }
        return Picture(height: height, width: width, pixels: pixels)
    }

    /// Copy what a tile keeps, without what was restored of reflected pixels.
    private func paste(_ restored: Picture, into result: inout Picture, _ y: Span, _ x: Span) {
        let scale = facts.scale
        let bottom = min(scale * y.keepStop, result.height)
        let right = min(scale * x.keepStop, result.width)
        for row in stride(from: scale * y.keepStart, to: bottom, by: 1) {
            for column in stride(from: scale * x.keepStart, to: right, by: 1) {
                let from = (row - scale * y.start) * restored.width + column - scale * x.start
                let to = row * result.width + column
                for c in 0..<3 { result.pixels[3 * to + c] = restored.pixels[3 * from + c] }
            }
        }
    }

    /// What the self-test found, in levels of 255.
    struct Outcome: CustomStringConvertible {
        let largest: Int
        let tolerance: Int
        var passed: Bool { largest <= tolerance }
        var description: String {
            "\(passed ? "passed" : "FAILED"): largest difference \(largest), "
                + "\(tolerance) of 255 levels allowed"
        }
    }

    /// Restore the golden picture and compare it with what the network restores.
    func selfTest(folder: URL) throws -> Outcome {
        let golden = folder.appendingPathComponent("golden")
        let input = try Data(contentsOf: golden.appendingPathComponent("input.rgb"))
        let expected = try Data(contentsOf: golden.appendingPathComponent("expected.rgb"))
        let restored = try restore(
            Picture(height: facts.golden.height, width: facts.golden.width, pixels: [UInt8](input)))
        precondition(restored.pixels.count == expected.count, "golden/expected.rgb has another size")
        let largest = zip(restored.pixels, expected).map { abs(Int($0) - Int($1)) }.max() ?? 0
        return Outcome(largest: largest, tolerance: facts.golden.tolerance)
    }
}

#if canImport(CoreML)
import CoreGraphics
import CoreML
import CoreVideo

/// The package, opened once. Xcode compiles it into the bundle as .mlmodelc.
final class CoreMLNetwork: Network {
    private let facts: Facts
    private let model: MLModel

    init(facts: Facts, bundle: Bundle) throws {
        let name = URL(fileURLWithPath: facts.file).deletingPathExtension().lastPathComponent
        guard let url = bundle.url(forResource: name, withExtension: "mlmodelc") else {
            throw CocoaError(.fileNoSuchFile, userInfo: [NSFilePathErrorKey: facts.file])
        }
        self.facts = facts
        model = try MLModel(contentsOf: url)
    }

    func run(_ window: Picture, average: [Float]?) throws -> (restored: Picture, features: [Float]) {
        // A package of images takes and gives pixel buffers; app.json says uint8 then.
        let images = facts.input.dtype == "uint8"
        var given = [facts.input.name: images
            ? MLFeatureValue(pixelBuffer: try window.pixelBuffer())
            : MLFeatureValue(multiArray: try array(packed(window), [3, window.height, window.width]))]
        if let pooling = facts.pooling, let average = average {
            given[pooling.pooled.name] = MLFeatureValue(multiArray: try array(average, [average.count, 1, 1]))
        }
        let found = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: given))
        let output = found.featureValue(for: facts.output.name)!
        let (height, width) = (facts.scale * window.height, facts.scale * window.width)
        let restored = images
            ? try Picture(pixelBuffer: output.imageBufferValue!)
            : unpacked(scalars(output), height: height, width: width)
        let features = facts.pooling.map { scalars(found.featureValue(for: $0.features.name)!) }
        return (restored, features ?? [])
    }

    private func array(_ values: [Float], _ shape: [Int]) throws -> MLMultiArray {
        let made = try MLMultiArray(shape: ([1] + shape) as [NSNumber], dataType: .float32)
        values.withUnsafeBytes { made.dataPointer.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        return made
    }

    /// The values of an output. A shaped array hides the strides, which may be padded.
    private func scalars(_ value: MLFeatureValue) -> [Float] {
        MLShapedArray<Float>(value.multiArrayValue!).scalars
    }
}

extension Picture {
    /// The picture as Core ML and Vision take it: blue, green, red, alpha.
    func pixelBuffer() throws -> CVPixelBuffer {
        var made: CVPixelBuffer?
        CVPixelBufferCreate(nil, width, height, kCVPixelFormatType_32BGRA, nil, &made)
        guard let buffer = made else { throw CocoaError(.fileReadTooLarge) }
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        let bytes = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<3 { bytes[y * stride + 4 * x + 2 - c] = pixels[3 * (y * width + x) + c] }
                bytes[y * stride + 4 * x + 3] = 255
            }
        }
        return buffer
    }

    /// The picture that Core ML gives.
    init(pixelBuffer buffer: CVPixelBuffer) throws {
        guard CVPixelBufferGetPixelFormatType(buffer) == kCVPixelFormatType_32BGRA else {
            throw CocoaError(.fileReadCorruptFile)
        }
        let (height, width) = (CVPixelBufferGetHeight(buffer), CVPixelBufferGetWidth(buffer))
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        let bytes = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        let pixels = (0..<3 * height * width).map { index -> UInt8 in
            let pixel = index / 3
            return bytes[pixel / width * stride + 4 * (pixel % width) + 2 - index % 3]
        }
        self.init(height: height, width: width, pixels: pixels)
    }
}

extension Picture {
    /// The picture in sRGB, without transparency.
    init(cgImage: CGImage) {
        let (height, width) = (cgImage.height, cgImage.width)
        var rgbx = [UInt8](repeating: 255, count: 4 * height * width)
        rgbx.withUnsafeMutableBytes { bytes in
            let context = CGContext(
                data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8,
                bytesPerRow: 4 * width, space: CGColorSpace(name: CGColorSpace.sRGB)!,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
            context.draw(cgImage, in: CGRect(x: 0, y: 0, width: width, height: height))
        }
        let pixels = (0..<3 * height * width).map { rgbx[$0 / 3 * 4 + $0 % 3] }
        self.init(height: height, width: width, pixels: pixels)
    }

    /// The picture for a view or a file.
    var cgImage: CGImage {
        CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: 3 * width,
            space: CGColorSpace(name: CGColorSpace.sRGB)!,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue),
            provider: CGDataProvider(data: Data(pixels) as CFData)!, decode: nil,
            shouldInterpolate: false, intent: .defaultIntent)!
    }
}
#endif
