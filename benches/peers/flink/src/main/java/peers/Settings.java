package peers;

import org.apache.flink.configuration.Configuration;

/** How both Flink jobs are set up. */
class Settings {
  static Configuration of(String directory, String backend, String intervalMs) {
    Configuration settings = new Configuration();
    settings.setString("execution.checkpointing.interval", intervalMs + " ms");
    settings.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
    settings.setString("execution.checkpointing.dir", "file://" + directory);
    settings.setString("execution.checkpointing.incremental", "true");
    settings.setString("state.backend.type", backend);
    settings.setString("pipeline.object-reuse", "true");
    settings.setString("taskmanager.memory.managed.size", "512m");
    settings.setString("rest.port", "0");
    return settings;
  }
}
