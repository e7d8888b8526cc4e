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
    // Whatever a job that is killed leaves behind is found and removed there.
    settings.setString("io.tmp.dirs", directory + "/tmp");
    return settings;
  }

  /** The job takes up a checkpoint of a job that was killed, as it would after a failure of its own: it goes on adding to it. */
  static void goOnFrom(Configuration settings, String checkpoint) {
    settings.setString("execution.state-recovery.path", "file://" + checkpoint);
    settings.setString("execution.state-recovery.claim-mode", "CLAIM");
  }
}
