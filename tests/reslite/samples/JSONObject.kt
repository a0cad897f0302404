// Stands for Android's org.json, as much of it as the sample uses.

package org.json

class JSONObject private constructor(private val values: Map<String, Any>) {
    constructor(text: String) : this(Reader(text).value() as Map<String, Any>)

    fun getString(name: String) = values.getValue(name) as String
    fun getInt(name: String) = (values.getValue(name) as Double).toInt()
    fun getJSONObject(name: String) = JSONObject(values.getValue(name) as Map<String, Any>)
    fun optJSONObject(name: String) = if (name in values) getJSONObject(name) else null
    fun getJSONArray(name: String) = JSONArray(values.getValue(name) as List<Any>)
    fun optDouble(name: String, fallback: Double) = values[name] as Double? ?: fallback
    fun optInt(name: String, fallback: Int) = (values[name] as Double?)?.toInt() ?: fallback
}

class JSONArray(private val values: List<Any>) {
    fun getInt(index: Int) = (values[index] as Double).toInt()
}

private class Reader(text: String) {
    private val tokens = Regex("""[{}\[\]]|"[^"]*"|-?[0-9.]+(e-?[0-9]+)?""").findAll(text).map { it.value }.iterator()

    fun value(token: String = tokens.next()): Any = when (token) {
        "{" -> until("}").chunked(2).associate { (name, value) -> name as String to value }
        "[" -> until("]")
        else -> if (token[0] == '"') token.trim('"') else token.toDouble()
    }

    private fun until(end: String): List<Any> {
        val found = mutableListOf<Any>()
        while (true) {
            val token = tokens.next()
            if (token == end) return found
            found += value(token)
        }
    }
}
