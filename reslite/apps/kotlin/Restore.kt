// Restores pictures with an exported file, on LiteRT's Interpreter (Android).
//
//   implementation("com.google.ai.edge.litert:litert:1.4.0")   // build.gradle.kts; see its newest
//
// Copy app.json, golden/ and the file that app.json names into src/main/assets/. Then
//
//   val facts = Facts.read { assets.open(it) }
//   val network = Network(facts) { assets.open(it) }
//   check(selfTest(network) { assets.open(it) }.passed)
//   val restored = network.restore(Picture.ofArgb(height, width, argb))   // Bitmap.getPixels
//
// Everything that is particular to the file stands in app.json. A Network is used by one thread at a
// time. Evidence: reslite's tests compile this file and run it on a JVM, with LiteRT behind a pipe
// in place of Android's; on a device the self-test is the proof.

import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import org.json.JSONObject
import org.tensorflow.lite.Interpreter

/** A picture, RGB bytes in rows. */
class Picture(val height: Int, val width: Int, val pixels: ByteArray = ByteArray(3 * height * width)) {
    /** The colours of Bitmap.setPixels, opaque. */
    fun toArgb() = IntArray(height * width) { i ->
        (0..2).fold(0xff) { argb, c -> (argb shl 8) or (pixels[3 * i + c].toInt() and 0xff) }
    }

    companion object {
        /** From the colours of Bitmap.getPixels. */
        fun ofArgb(height: Int, width: Int, argb: IntArray) =
            Picture(height, width, ByteArray(3 * argb.size) { (argb[it / 3] shr (16 - 8 * (it % 3))).toByte() })
    }
}

/** Type of an input or output, and what its integers mean: value = (integer - zeroPoint) * scale. */
class Tensor(val name: String, val dtype: String, val scale: Float, val zeroPoint: Int) {
    val bytes = if (dtype == "float32") 4 else 1
    private val least = if (dtype == "uint8") 0 else -128

    /** Write a value; a picture's are in [0, 1]. */
    fun put(buffer: ByteBuffer, value: Float) {
        if (dtype == "float32") {
            buffer.putFloat(value)
        } else {
            val integer = round(value / scale).toInt() + zeroPoint
            buffer.put(min(max(integer, least), least + 255).toByte())
        }
    }

    /** Read a value; a picture's may lie outside [0, 1]. */
    fun get(buffer: ByteBuffer): Float {
        if (dtype == "float32") return buffer.getFloat()
        val byte = buffer.get().toInt()
        return ((if (dtype == "uint8") byte and 0xff else byte) - zeroPoint) * scale
    }
}

/** The further tensors of a network that averages features over the whole picture. */
class Pooling(val channels: Int, val features: Tensor, val pooled: Tensor)

/** What app.json says. */
class Facts(json: JSONObject) {
    val file: String = json.getString("file").substringAfterLast('/')
    val scale = json.getInt("scale")
    val halo = json.getInt("halo")
    val multiple = json.getInt("multiple")
    val window = json.getJSONArray("window").let { Pair(it.getInt(0), it.getInt(1)) }
    val input = tensor(json.getJSONObject("input"))
    val output = tensor(json.getJSONObject("output"))
    val pooling = json.optJSONObject("pooling")?.let {
        Pooling(it.getInt("channels"), tensor(it.getJSONObject("features")), tensor(it.getJSONObject("pooled")))
    }
    val golden: JSONObject = json.getJSONObject("golden")

    private fun tensor(json: JSONObject) = Tensor(
        json.getString("name"), json.getString("dtype"),
        json.optDouble("scale", 1.0).toFloat(), json.optInt("zero_point", 0)
    )

    companion object {
        fun read(asset: (String) -> InputStream) =
            Facts(JSONObject(asset("app.json").use { it.readBytes() }.decodeToString()))
    }
}

/** What a tile reads (from start) and keeps along one axis, in input pixels. */
class Span(val start: Int, val keepStart: Int, val keepStop: Int)

/** Cover an axis with windows. A halo is cut off at each end but at the picture's edges. */
fun spans(extent: Int, window: Int, halo: Int): List<Span> {
    val found = mutableListOf<Span>()
    var kept = 0
    while (kept < extent) {
        val start = min(max(0, kept - halo), extent - window)
        val keepStop = if (start + window == extent) extent else start + window - halo
        found += Span(start, kept, keepStop)
        kept = keepStop
    }
    return found
}

/** The pixel that stands at an index of an axis that is continued by reflection. */
fun reflected(index: Int, extent: Int): Int {
    if (extent == 1) return 0
    val at = index % (2 * extent - 2)
    return if (at < extent) at else 2 * extent - 2 - at
}

/** The file, opened once; every input is one window of the size in app.json. */
class Network(val facts: Facts, asset: (String) -> InputStream) {
    private val height = facts.window.first
    private val width = facts.window.second
    private val input = buffer(3 * height * width * facts.input.bytes)
    private val output = buffer(3 * height * width * facts.scale * facts.scale * facts.output.bytes)
    private val pooled = buffer(facts.pooling?.let { it.channels * it.pooled.bytes } ?: 0)
    private val features = buffer(facts.pooling?.let { it.channels * height * width * it.features.bytes } ?: 0)
    private val interpreter: Interpreter

    init {
        val file = asset(facts.file).use { it.readBytes() }
        interpreter = Interpreter(buffer(file.size).apply { put(file).rewind() })
        interpreter.resizeInput(interpreter.getInputIndex(facts.input.name), intArrayOf(1, height, width, 3))
        interpreter.allocateTensors()
    }

    /** Restore a picture of any size. */
    fun restore(picture: Picture): Picture {
        // Continued by reflection up to a multiple that the network takes, and up to a whole window.
        val (rows, columns) = Pair(multipleOf(picture.height), multipleOf(picture.width))
        val tiles = spans(max(height, rows), height, facts.halo).flatMap { y ->
            spans(max(width, columns), width, facts.halo).map { x -> Pair(y, x) }
        }
        val average = facts.pooling?.let { average(it, picture, tiles, rows, columns) }
        val result = Picture(facts.scale * picture.height, facts.scale * picture.width)
        for ((y, x) in tiles) {
            run(picture, y.start, x.start, average)
            paste(restored(), result, y, x)
        }
        return result
    }

    private fun multipleOf(extent: Int) = (extent + facts.multiple - 1) / facts.multiple * facts.multiple

    /**
     * Average the network's features over a picture: a first pass, in which every pixel counts once.
     * Pixels that fill a window beyond the rows and columns do not count.
     */
    private fun average(
        pooling: Pooling, picture: Picture, tiles: List<Pair<Span, Span>>, rows: Int, columns: Int
    ): FloatArray {
        val (total, none) = Pair(DoubleArray(pooling.channels), FloatArray(pooling.channels))
        for ((y, x) in tiles) {
            run(picture, y.start, x.start, none)
            for (row in y.keepStart until min(y.keepStop, rows)) {
                for (column in x.keepStart until min(x.keepStop, columns)) {
                    val pixel = (row - y.start) * width + column - x.start
                    features.position(pixel * pooling.channels * pooling.features.bytes)
                    for (c in total.indices) total[c] += pooling.features.get(features).toDouble()
                }
            }
        }
        return FloatArray(pooling.channels) { (total[it] / (rows * columns)).toFloat() }
    }

    /** Run the window that begins at a pixel, with the average where the network takes one. */
    private fun run(picture: Picture, top: Int, left: Int, average: FloatArray?) {
        input.rewind()
        for (y in top until top + height) for (x in left until left + width) {
            val from = 3 * (reflected(y, picture.height) * picture.width + reflected(x, picture.width))
            for (c in 0..2) facts.input.put(input, (picture.pixels[from + c].toInt() and 0xff) / 255f)
        }
        pooled.rewind()
        facts.pooling?.let { pooling -> average?.forEach { pooling.pooled.put(pooled, it) } }
        val inputs = mutableMapOf(interpreter.getInputIndex(facts.input.name) to input)
        val outputs = mutableMapOf(interpreter.getOutputIndex(facts.output.name) to output)
        facts.pooling?.let {
            inputs[interpreter.getInputIndex(it.pooled.name)] = pooled
            outputs[interpreter.getOutputIndex(it.features.name)] = features
        }
        (inputs.values + outputs.values).forEach { it.rewind() }
        interpreter.runForMultipleInputsOutputs(inputs.toSortedMap().values.toTypedArray(), outputs.toMap())
    }

    /** The picture that the last run restored. */
    private fun restored(): Picture {
        output.rewind()
        val restored = Picture(facts.scale * height, facts.scale * width)
        for (i in restored.pixels.indices) {
            // Networks overshoot, so clamp before rounding.
            val value = min(max(facts.output.get(output), 0f), 1f)
            restored.pixels[i] = round(value * 255).toInt().toByte()
        }
        return restored
    }

    /** Copy what a tile keeps, without what was restored of reflected pixels. */
    private fun paste(restored: Picture, result: Picture, y: Span, x: Span) {
        val scale = facts.scale
        val length = min(scale * x.keepStop, result.width) - scale * x.keepStart
        if (length <= 0) return
        for (row in scale * y.keepStart until min(scale * y.keepStop, result.height)) {
            val from = (row - scale * y.start) * restored.width + scale * (x.keepStart - x.start)
            val to = row * result.width + scale * x.keepStart
            restored.pixels.copyInto(result.pixels, 3 * to, 3 * from, 3 * (from + length))
        }
    }

    private fun buffer(bytes: Int) = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
}

/** What the self-test found, in levels of 255. */
class Outcome(val largest: Int, val tolerance: Int) {
    val passed = largest <= tolerance

    override fun toString() = (if (passed) "passed" else "FAILED") +
        ": largest difference $largest, $tolerance of 255 levels allowed"
}

/** Restore the golden picture and compare it with what the file restored where it was proven. */
fun selfTest(network: Network, asset: (String) -> InputStream): Outcome {
    val golden = network.facts.golden
    val pixels = asset("golden/input.rgb").use { it.readBytes() }
    val expected = asset("golden/expected.rgb").use { it.readBytes() }
    val restored = network.restore(Picture(golden.getInt("height"), golden.getInt("width"), pixels))
    check(restored.pixels.size == expected.size) { "golden/expected.rgb has another size" }
    val largest = expected.indices.maxOf { i ->
        abs((restored.pixels[i].toInt() and 0xff) - (expected[i].toInt() and 0xff))
    }
    return Outcome(largest, golden.getInt("tolerance"))
}
