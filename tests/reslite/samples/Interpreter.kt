// Stands for LiteRT's Interpreter, as much of it as the sample uses: the test at the other end of the
// pipe runs the file.

package org.tensorflow.lite

import java.nio.ByteBuffer

class Interpreter(model: ByteBuffer) {
    init {
        check(model.isDirect && model.remaining() > 0)
    }

    private var shape = intArrayOf()

    fun resizeInput(index: Int, shape: IntArray) {
        check(index == getInputIndex("image"))
        this.shape = shape
    }

    fun allocateTensors() = check(shape.size == 4)

    // As in the files: what was cut at a pooling comes behind the picture.
    fun getInputIndex(name: String) = if (name == "image") 0 else 1

    fun getOutputIndex(name: String) = if (name == "restored_image") 0 else 1

    fun runForMultipleInputsOutputs(inputs: Array<out Any>, outputs: Map<Int, Any>) {
        for (input in inputs) {
            input as ByteBuffer
            System.out.write(ByteArray(input.remaining()).also { input.get(it) })
        }
        System.out.flush()
        for (index in outputs.keys.sorted()) {
            val output = outputs.getValue(index) as ByteBuffer
            output.put(System.`in`.readNBytes(output.remaining()))
        }
    }
}
