// Restores the golden picture with the network at the other end of the pipe, in place of Core ML.

import Foundation

struct PipedNetwork: Network {
    let facts: Facts

    func run(_ window: Picture, average: [Float]?) throws -> (restored: Picture, features: [Float]) {
        let given = packed(window) + (average ?? [])
        FileHandle.standardOutput.write(given.withUnsafeBytes { Data($0) })
        let (height, width) = (facts.scale * window.height, facts.scale * window.width)
        let restored = try read(3 * height * width)
        let features = try read((facts.pooling?.channels ?? 0) * window.height * window.width)
        return (unpacked(restored, height: height, width: width), features)
    }

    private func read(_ count: Int) throws -> [Float] {
        var found = Data()
        while found.count < 4 * count {
            let more = FileHandle.standardInput.readData(ofLength: 4 * count - found.count)
            precondition(!more.isEmpty, "the pipe has ended")
            found.append(more)
        }
        return found.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }
}

let folder = URL(fileURLWithPath: CommandLine.arguments[1])
let facts = try Facts(folder: folder)
let network = PipedNetwork(facts: facts)
let outcome = try Restorer(facts: facts, network: network).selfTest(folder: folder)
FileHandle.standardError.write("\(outcome)\n".data(using: .utf8)!)
exit(outcome.passed ? 0 : 1)
