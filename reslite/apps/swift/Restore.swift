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
    let golden: Golden

    init(folder: URL) throws {
        let data = try Data(contentsOf: folder.appendingPathComponent("app.json"))
        self = try JSONDecoder().decode(Facts.self, from: data)
    }
}

/// Restores one window: floats in [0, 1], first all of red, then green, then blue (NCHW).
protocol Network {
    func run(_ window: [Float]) throws -> [Float]
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
        // Continued by reflection up to a whole window, or up to a multiple that the network takes.
        let rows = max(height, multiple(of: picture.height))
        let columns = max(width, multiple(of: picture.width))
        let pixels = [UInt8](repeating: 0, count: 3 * scale * picture.height * scale * picture.width)
        var result = Picture(height: scale * picture.height, width: scale * picture.width, pixels: pixels)
        for y in spans(extent: rows, window: height, halo: facts.halo) {
            for x in spans(extent: columns, window: width, halo: facts.halo) {
                let restored = try network.run(packed(picture, top: y.start, left: x.start))
                paste(restored, into: &result, y, x)
            }
        }
        return result
    }

    private func multiple(of extent: Int) -> Int {
        (extent + facts.multiple - 1) / facts.multiple * facts.multiple
    }

    /// The window that begins at a pixel.
    private func packed(_ picture: Picture, top: Int, left: Int) -> [Float] {
        let (height, width) = (facts.window[0], facts.window[1])
        var values = [Float](repeating: 0, count: 3 * height * width)
        for y in 0..<height {
            let row = reflected(top + y, picture.height) * picture.width
            for x in 0..<width {
                let from = 3 * (row + reflected(left + x, picture.width))
                for c in 0..<3 {
                    values[(c * height + y) * width + x] = Float(picture.pixels[from + c]) / 255
                }
            }
        }
        return values
    }

    /// Copy what a tile keeps, without what was restored of reflected pixels.
    private func paste(_ restored: [Float], into result: inout Picture, _ y: Span, _ x: Span) {
        let (scale, height, width) = (facts.scale, facts.window[0], facts.window[1])
        let plane = scale * height * scale * width
        let bottom = min(scale * y.keepStop, result.height)
        let right = min(scale * x.keepStop, result.width)
        for row in stride(from: scale * y.keepStart, to: bottom, by: 1) {
            for column in stride(from: scale * x.keepStart, to: right, by: 1) {
                let from = (row - scale * y.start) * scale * width + column - scale * x.start
                for c in 0..<3 {
                    // Networks overshoot, so clamp before rounding.
                    let value = min(max(restored[c * plane + from], 0), 1) * 255
                    result.pixels[3 * (row * result.width + column) + c] = UInt8(value.rounded())
                }
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

    func run(_ window: [Float]) throws -> [Float] {
        let shape = [1, 3, facts.window[0], facts.window[1]] as [NSNumber]
        let input = try MLMultiArray(shape: shape, dataType: .float32)
        window.withUnsafeBytes { input.dataPointer.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        let features = try MLDictionaryFeatureProvider(dictionary: [facts.input.name: input])
        let found = try model.prediction(from: features).featureValue(for: facts.output.name)
        // A shaped array hides the strides, which may be padded.
        return MLShapedArray<Float>(found!.multiArrayValue!).scalars
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
