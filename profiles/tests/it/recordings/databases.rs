//! Databases as profilers write them: small runs, to the documented schemas.

use std::path::Path;

use rusqlite::Connection;

/// The schema of 2024 to 2026, comments and all, with the tables of a small run.
const SCHEMA: &str = "
CREATE TABLE StringIds (
    -- Consolidation of repetitive string values.
    id                          INTEGER   NOT NULL   PRIMARY KEY,      -- ID reference value.
    value                       TEXT      NOT NULL                     -- String value.
);
CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT NOT NULL);
CREATE TABLE TARGET_INFO_GPU (
    vmId INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT, busLocation TEXT, isDiscrete INTEGER,
    l2CacheSize INTEGER, totalMemory INTEGER, memoryBandwidth INTEGER, clockRate INTEGER,
    smCount INTEGER, pwGpuId INTEGER, uuid TEXT, chipName TEXT
);
CREATE TABLE TARGET_INFO_CUDA_DEVICE (
    gpuId INTEGER NOT NULL, cudaId INTEGER NOT NULL, pid INTEGER NOT NULL, uuid TEXT, numMultiprocessors INTEGER
);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (
    start                       INTEGER   NOT NULL,                    -- Event start timestamp (ns).
    end                         INTEGER   NOT NULL,                    -- Event end timestamp (ns).
    deviceId                    INTEGER   NOT NULL,                    -- Device ID.
    contextId                   INTEGER   NOT NULL,                    -- Context ID.
    greenContextId              INTEGER,                               -- Green context ID.
    streamId                    INTEGER   NOT NULL,                    -- Stream ID.
    correlationId               INTEGER,                               -- REFERENCES CUPTI_ACTIVITY_KIND_RUNTIME(correlationId)
    globalPid                   INTEGER,                               -- Serialized GlobalId.
    demangledName               INTEGER   NOT NULL,                    -- REFERENCES StringIds(id) -- Kernel function name w/ templates
    shortName                   INTEGER   NOT NULL,                    -- REFERENCES StringIds(id) -- Base kernel function name
    mangledName                 INTEGER,                               -- REFERENCES StringIds(id) -- Raw C++ mangled kernel function name
    launchType                  INTEGER,                               -- REFERENCES ENUM_CUDA_KERNEL_LAUNCH_TYPE(id)
    registersPerThread          INTEGER   NOT NULL,                    -- Number of registers required for each thread.
    gridX INTEGER NOT NULL, gridY INTEGER NOT NULL, gridZ INTEGER NOT NULL,
    blockX INTEGER NOT NULL, blockY INTEGER NOT NULL, blockZ INTEGER NOT NULL,
    staticSharedMemory INTEGER NOT NULL, dynamicSharedMemory INTEGER NOT NULL,
    localMemoryPerThread INTEGER NOT NULL, localMemoryTotal INTEGER NOT NULL,
    gridId INTEGER NOT NULL, sharedMemoryExecuted INTEGER, graphNodeId INTEGER, sharedMemoryLimitConfig INTEGER
);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (
    start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL, globalTid INTEGER,
    correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL, callchainId INTEGER
);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (
    start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL,
    streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER, bytes INTEGER NOT NULL,
    copyKind INTEGER NOT NULL, deprecatedSrcId INTEGER, srcKind INTEGER, dstKind INTEGER, graphNodeId INTEGER
);
CREATE TABLE NVTX_EVENTS (
    start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER, category INTEGER,
    color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER, domainId INTEGER,
    uint64Value INTEGER
);
INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_SCHEMA_VERSION', '3.24.14');
INSERT INTO TARGET_INFO_GPU (vmId, id, name, totalMemory, smCount) VALUES
    (0, 0, 'NVIDIA A100-SXM4-80GB', 85100000000, 108), (0, 1, 'NVIDIA H100 80GB HBM3', 85100000000, 132);
INSERT INTO TARGET_INFO_CUDA_DEVICE (gpuId, cudaId, pid) VALUES (1, 0, 4242);
INSERT INTO StringIds VALUES (1, 'void gemm<128, 64>(float*)'), (2, 'gemm'), (3, 'relu'), (4, 'pass'),
    (5, 'cudaLaunchKernel_v7000');
";
/// Process 4242, and its thread 4243.
const PID: i64 = (1 << 48) | (4242 << 24);
const TID: i64 = PID | 4243;

/// Four passes, each under an NVTX range, launched 50 µs apart: the GPU waits for the host.
pub(crate) fn nsys(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(SCHEMA).unwrap();
    let mut link = 100;
    for pass in 0..4i64 {
        let at = 10_000_000 + pass * 1_000_000;
        db.execute(
            "INSERT INTO NVTX_EVENTS (start, end, eventType, textId, globalTid) VALUES (?, ?, 59, 4, ?)",
            [at - 30_000, at + 500_000, TID],
        )
        .unwrap();
        db.execute(
            "INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (?, ?, 0, 1, 7, ?, ?, 1000000, 1, 0, 1, 2, NULL)",
            [at - 25_000, at - 5_000, link, PID],
        )
        .unwrap();
        link += 1;
        for i in 0..6i64 {
            let (name, short, ns) = if i % 2 == 0 { (1, 2, 4_000) } else { (3, 3, 2_000) };
            let start = at + i * 50_000;
            db.execute(
                "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, 0, ?, ?, 5, 0, NULL)",
                [start - 9_000, start - 3_000, TID, link],
            )
            .unwrap();
            db.execute(
                "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES
                 (?, ?, 0, 1, NULL, 7, ?, ?, ?, ?, NULL, NULL, 64, 300, 1, 1, 128, 2, 1, 0, 4096, 0, 0, 1, NULL, NULL, NULL)",
                [start, start + ns + pass, link, PID, name, short],
            )
            .unwrap();
            link += 1;
        }
    }
    // Kernels outside every range, and another process.
    db.execute_batch(&format!(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL SELECT start + 20000000, end + 20000000, deviceId, contextId,
            greenContextId, streamId, 0, globalPid, demangledName, shortName, mangledName, launchType,
            registersPerThread, gridX, gridY, gridZ, blockX, blockY, blockZ, staticSharedMemory,
            dynamicSharedMemory, localMemoryPerThread, localMemoryTotal, gridId, sharedMemoryExecuted,
            graphNodeId, sharedMemoryLimitConfig FROM CUPTI_ACTIVITY_KIND_KERNEL LIMIT 1;
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL SELECT start + 7, start + 17, deviceId, 2,
            greenContextId, 9, correlationId, {}, 3, 3, mangledName, launchType,
            registersPerThread, gridX, gridY, gridZ, blockX, blockY, blockZ, staticSharedMemory,
            dynamicSharedMemory, localMemoryPerThread, localMemoryTotal, gridId, sharedMemoryExecuted,
            graphNodeId, sharedMemoryLimitConfig FROM CUPTI_ACTIVITY_KIND_KERNEL LIMIT 2;",
        (1i64 << 48) | (777 << 24)
    ))
    .unwrap();
}

/// A rocpd database of three marked passes, two launches each.
pub(crate) fn rocpd(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE rocpd_string_0a1b (id INTEGER PRIMARY KEY, guid TEXT, string TEXT);
         CREATE TABLE rocpd_info_agent_0a1b (id INTEGER PRIMARY KEY, nid INT, pid INT, type TEXT, absolute_index INT, name TEXT, product_name TEXT);
         CREATE TABLE rocpd_info_kernel_symbol_0a1b (id INTEGER PRIMARY KEY, kernel_name TEXT, display_name TEXT, arch_vgpr_count INT);
         CREATE TABLE rocpd_event_0a1b (id INTEGER PRIMARY KEY, category_id INT, stack_id INT, parent_stack_id INT, correlation_id INT);
         CREATE TABLE rocpd_region_0a1b (id INTEGER PRIMARY KEY, nid INT, pid INT, tid INT, start INT, end INT, name_id INT, event_id INT);
         CREATE TABLE rocpd_kernel_dispatch_0a1b (id INTEGER PRIMARY KEY, nid INT, pid INT, tid INT, agent_id INT, kernel_id INT,
           dispatch_id INT, queue_id INT, stream_id INT, start INT, end INT, private_segment_size INT, group_segment_size INT,
           workgroup_size_x INT, workgroup_size_y INT, workgroup_size_z INT, grid_size_x INT, grid_size_y INT, grid_size_z INT, event_id INT);
         CREATE TABLE rocpd_memory_copy_0a1b (id INTEGER PRIMARY KEY, nid INT, pid INT, tid INT, start INT, end INT, name_id INT,
           dst_agent_id INT, dst_address INT, src_agent_id INT, src_address INT, size INT, queue_id INT, stream_id INT, event_id INT);
         INSERT INTO rocpd_string_0a1b VALUES (1, '', 'HIP_RUNTIME_API'), (2, '', 'hipLaunchKernel'), (3, '', 'MARKER_CORE_RANGE_API'), (4, '', 'forward');
         INSERT INTO rocpd_info_agent_0a1b VALUES (1, 1, 7, 'CPU', 0, 'cpu', 'EPYC'), (2, 1, 7, 'GPU', 1, 'gfx90a', 'AMD Instinct MI210');
         INSERT INTO rocpd_info_kernel_symbol_0a1b VALUES (5, 'gemm.kd', 'gemm', 64), (6, 'relu.kd', 'relu', 32);",
    )
    .unwrap();
    for i in 0..3i64 {
        let at = 1_000_000 + 500_000 * i;
        db.execute("INSERT INTO rocpd_event_0a1b VALUES (?, 3, ?, 0, 0)", [100 + i, 100 + i])
            .unwrap();
        db.execute("INSERT INTO rocpd_region_0a1b (nid, pid, tid, start, end, name_id, event_id) VALUES (1, 7, 7, ?, ?, 4, ?)", [at, at + 400_000, 100 + i]).unwrap();
        db.execute(
            "INSERT INTO rocpd_memory_copy_0a1b VALUES (NULL, 1, 7, 7, ?, ?, 3, 2, 0, 1, 0, 65536, 1, 0, NULL)",
            [at + 5_000, at + 9_000],
        )
        .unwrap();
        for k in 0..2i64 {
            let event = 10 * i + 2 * k + 1;
            let call = at + 10_000 + 40_000 * k;
            for e in [event, event + 1] {
                db.execute("INSERT INTO rocpd_event_0a1b VALUES (?, 1, ?, 0, 0)", [e, event])
                    .unwrap();
            }
            db.execute("INSERT INTO rocpd_region_0a1b (nid, pid, tid, start, end, name_id, event_id) VALUES (1, 7, 7, ?, ?, 2, ?)", [call, call + 4_000, event]).unwrap();
            db.execute(
                "INSERT INTO rocpd_kernel_dispatch_0a1b VALUES (NULL, 1, 7, 7, 2, ?, 0, 1, 0, ?, ?, 0, 512, 64, 1, 1, 6400, 1, 1, ?)",
                [5 + k, call + 8_000, call + 13_000, event + 1],
            )
            .unwrap();
        }
    }
}
