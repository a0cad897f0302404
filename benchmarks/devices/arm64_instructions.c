/*
 * A plugin for QEMU that counts AArch64 instructions by kind.
 *
 * The counted program asks for the counts by getpriority(0x5250, 0), a request that the kernel
 * refuses: they are written as one line to the standard error of QEMU's process.
 *
 * Debian packages no header of QEMU's plugin interface (version 1, QEMU 4.2 to 8.2); what is used
 * of it is declared below. Encodings: Arm Architecture Reference Manual for A-profile, "Top-level
 * encodings for A64" and "Data Processing -- Scalar Floating-Point and Advanced SIMD".
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*translation_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_callback)(qemu_plugin_id_t, unsigned int, int64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translation_callback);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *,
                                              uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

EXPORTED int qemu_plugin_version = 1;

enum kind { DOT_PRODUCT, MULTIPLY_ADD, OTHER_VECTOR, LOAD_STORE, BRANCH, INTEGER, OTHER, KINDS };

static const char *const names[KINDS] = {
    "dot_product", "multiply_add", "other_vector", "load_store", "branch", "integer", "other",
};
static uint64_t counts[KINDS];

static int is(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

static enum kind kind_of(uint32_t word)
{
    unsigned group = (word >> 25) & 0xF;
    if ((group & 7) == 7) {
        /* SDOT, UDOT, USDOT: vectors, then by element; SMMLA, UMMLA, USMMLA. */
        if (is(word, 0x9F20FC00, 0x0E009400) || is(word, 0x9F20FC00, 0x0E009C00) ||
            is(word, 0x9F00F400, 0x0F00E000) || is(word, 0xBF00F400, 0x0F00F000) ||
            is(word, 0xDF20FC00, 0x4E00A400) || is(word, 0xDF20FC00, 0x4E00AC00)) {
            return DOT_PRODUCT;
        }
        /* FMLA: vectors and by element, in single or double and in half precision. */
        if (is(word, 0xBFA0FC00, 0x0E20CC00) || is(word, 0xBF80F400, 0x0F801000) ||
            is(word, 0xBFE0FC00, 0x0E400C00) || is(word, 0xBFC0F400, 0x0F001000)) {
            return MULTIPLY_ADD;
        }
        return OTHER_VECTOR;
    }
    if ((group & 5) == 4) {
        return LOAD_STORE;
    }
    if ((group & 0xE) == 0xA) {
        return BRANCH;
    }
    return (group & 0xE) == 8 || (group & 7) == 5 ? INTEGER : OTHER;
}

/* Counts per translated block: one addition for each kind that occurs in it. */
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    uint64_t found[KINDS] = {0};
    size_t length = qemu_plugin_tb_n_insns(block);
    for (size_t index = 0; index < length; index++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, index)), sizeof word);
        found[kind_of(word)]++;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (found[kind]) {
            qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64,
                                                     &counts[kind], found[kind]);
        }
    }
}

static void on_syscall(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t which,
                       uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g,
                       uint64_t h)
{
    (void)id, (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    const int64_t getpriority = 141;
    if (number != getpriority || (uint32_t)which != 0x5250) {
        return;
    }
    fprintf(stderr, "reslite-instructions");
    for (int kind = 0; kind < KINDS; kind++) {
        fprintf(stderr, " %s=%" PRIu64, names[kind], counts[kind]);
    }
    fprintf(stderr, "\n");
    fflush(stderr);
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                 char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
